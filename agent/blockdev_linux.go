package agent

import (
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Block device controls that x/sys has no wrapper for.
const (
	blkDiscard  = 0x1277
	blkFlushBuf = 0x1261
	blkReread   = 0x125f
)

func isBlock(f *os.File) bool {
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeDevice != 0 && fi.Mode()&os.ModeCharDevice == 0
}

func ioctl(f *os.File, req uintptr, arg unsafe.Pointer) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), req, uintptr(arg))
	runtime.KeepAlive(f)
	if e != 0 {
		return e
	}
	return nil
}

// discard tells the device that a range holds nothing any more. Devices that cannot are fine: it is never the only measure.
func discard(f *os.File, s Span) error {
	if !isBlock(f) {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, s.Start, s.Size)
	}
	r := [2]uint64{uint64(s.Start), uint64(s.Size)}
	return ioctl(f, blkDiscard, unsafe.Pointer(&r))
}

// flushCache makes the next read come from the device.
func flushCache(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if isBlock(f) {
		return ioctl(f, blkFlushBuf, nil)
	}
	return nil
}

// rereadPartitions makes the kernel look at the partition table again; a device that is still settling answers busy for a moment.
func rereadPartitions(f *os.File) error {
	if !isBlock(f) {
		return nil
	}
	var err error
	for i := 0; i < 50; i++ {
		if err = ioctl(f, blkReread, nil); err != unix.EBUSY {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("re-read partition table: %w", err)
	}
	return nil
}

// addPartition tells the kernel of a partition that it has not found by itself (kernels may lack a reader for the table).
func addPartition(f *os.File, p tablePart) error {
	part := struct {
		start, length int64
		number        int32
		names         [128]byte
	}{start: p.start, length: p.end - p.start, number: int32(p.number)}
	arg := struct {
		op, flags, length int32
		data              unsafe.Pointer
	}{op: unix.BLKPG_ADD_PARTITION, length: int32(unsafe.Sizeof(part)), data: unsafe.Pointer(&part)}
	err := ioctl(f, unix.BLKPG, unsafe.Pointer(&arg))
	if err == unix.EBUSY { // it is there already
		return nil
	}
	return err
}

func swapoff(dev string) error {
	p, err := unix.BytePtrFromString(dev)
	if err != nil {
		return err
	}
	if _, _, e := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(p)), 0, 0); e != 0 {
		return e
	}
	return nil
}
