package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errNoSecureErase is a disk that cannot erase itself, or not now: its content has to be overwritten.
var errNoSecureErase = errors.New("the disk offers no secure erase")

// nvmeCommand is the kernel's struct nvme_passthru_cmd.
type nvmeCommand struct {
	opcode, flags      uint8
	_                  uint16
	nsid               uint32
	cdw2, cdw3         uint32
	metadata, addr     uint64
	metadataLen, len   uint32
	cdw10, cdw11       uint32
	cdw12, cdw13       uint32
	cdw14, cdw15       uint32
	timeoutMS, results uint32
}

const (
	nvmeAdmin = 0xc0484e41 // NVME_IOCTL_ADMIN_CMD
	nvmeID    = 0x4e40     // NVME_IOCTL_ID
)

// nvmeDevice sends administration commands to the controller behind a namespace.
type nvmeDevice interface {
	admin(opcode uint8, nsid, cdw10, cdw11 uint32, buf []byte, limit time.Duration) error
	namespace() (uint32, error)
}

type nvmeFile struct{ f *os.File }

func (n nvmeFile) namespace() (uint32, error) {
	id, _, e := unix.Syscall(unix.SYS_IOCTL, n.f.Fd(), nvmeID, 0)
	runtime.KeepAlive(n.f)
	if e != 0 {
		return 0, e
	}
	return uint32(id), nil
}

func (n nvmeFile) admin(opcode uint8, nsid, cdw10, cdw11 uint32, buf []byte, limit time.Duration) error {
	c := nvmeCommand{opcode: opcode, nsid: nsid, cdw10: cdw10, cdw11: cdw11, timeoutMS: uint32(limit.Milliseconds())}
	var pin runtime.Pinner
	defer pin.Unpin()
	if len(buf) > 0 {
		pin.Pin(&buf[0])
		c.addr, c.len = uint64(uintptr(unsafe.Pointer(&buf[0]))), uint32(len(buf))
	}
	status, _, e := unix.Syscall(unix.SYS_IOCTL, n.f.Fd(), nvmeAdmin, uintptr(unsafe.Pointer(&c)))
	runtime.KeepAlive(n.f)
	if e != 0 {
		return e
	}
	if status != 0 {
		return fmt.Errorf("the controller answers with status 0x%x", status)
	}
	return nil
}

// nvmeFacts is what a controller and a namespace say of erasing.
type nvmeFacts struct {
	namespaces                          int
	format                              bool // Format NVM is there
	formatAll                           bool // a secure format reaches every namespace
	formatCrypto                        bool
	sanitizeCrypto, sanitizeBlock, over bool
	lba                                 uint32 // the present format, as Format NVM takes it
}

func readNVMe(d nvmeDevice, nsid uint32) (nvmeFacts, error) {
	var f nvmeFacts
	le := binary.LittleEndian
	const identify, limit = 0x06, 10 * time.Second
	ctrl, list, ns := make([]byte, 4096), make([]byte, 4096), make([]byte, 4096)
	if err := d.admin(identify, 0, 1, 0, ctrl, limit); err != nil {
		return f, fmt.Errorf("identify controller: %w", err)
	}
	if err := d.admin(identify, nsid, 0, 0, ns, limit); err != nil {
		return f, fmt.Errorf("identify namespace: %w", err)
	}
	f.format = le.Uint16(ctrl[256:])&2 != 0
	fna, sani := ctrl[524], le.Uint32(ctrl[328:])
	f.formatAll, f.formatCrypto = fna&3 != 0, fna&4 != 0
	f.sanitizeCrypto, f.sanitizeBlock, f.over = sani&1 != 0, sani&2 != 0, sani&4 != 0
	flbas, dps := uint32(ns[26]), uint32(ns[29])
	f.lba = flbas&0xf | (flbas>>4&1)<<4 | (dps&7)<<5 | (dps>>3&1)<<8 | (flbas>>5&3)<<12
	if err := d.admin(identify, 0, 2, 0, list, limit); err != nil { // old controllers: as many as they can have
		f.namespaces = int(min(le.Uint32(ctrl[516:]), 1<<16))
		return f, nil
	}
	for i := 0; i < 1024 && le.Uint32(list[4*i:]) != 0; i++ {
		f.namespaces++
	}
	return f, nil
}

// eraseNVMe lets a drive erase itself: by Sanitize, whose result outlasts a loss of power and reaches spare blocks, else by a secure
// Format. Both can reach other namespaces of the controller, which the plan may not name: then only a Format that stays in its own is used.
func eraseNVMe(ctx context.Context, d nvmeDevice, progress func(string)) (how string, err error) {
	nsid, err := d.namespace()
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoSecureErase, err)
	}
	f, err := readNVMe(d, nsid)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoSecureErase, err)
	}
	alone := f.namespaces <= 1
	type way struct {
		name string
		can  bool
		do   func() error
	}
	sanitize := func(action uint32) func() error {
		return func() error { return sanitizeNVMe(ctx, d, action, progress) }
	}
	format := func(ses uint32) func() error {
		return func() error { return d.admin(0x80, nsid, f.lba|ses<<9, 0, nil, 6*time.Hour) }
	}
	var tried error
	for _, w := range []way{
		{"NVMe sanitize, cryptographic", f.sanitizeCrypto && alone, sanitize(4)},
		{"NVMe sanitize, block erase", f.sanitizeBlock && alone, sanitize(2)},
		{"NVMe format, cryptographic", f.format && f.formatCrypto && (alone || !f.formatAll), format(2)},
		{"NVMe format, user data", f.format && (alone || !f.formatAll), format(1)},
		{"NVMe sanitize, overwrite", f.over && alone, sanitize(3 | 1<<4)},
	} {
		if !w.can {
			continue
		}
		if err := w.do(); err == nil {
			return w.name, nil
		} else if ctx.Err() != nil {
			return "", ctx.Err()
		} else {
			tried = errors.Join(tried, fmt.Errorf("%s: %w", w.name, err))
		}
	}
	if tried == nil && !alone {
		tried = fmt.Errorf("its controller has %d namespaces, and would erase them all", f.namespaces)
	}
	if tried == nil {
		return "", errNoSecureErase
	}
	return "", fmt.Errorf("%w: %w", errNoSecureErase, tried)
}

// sanitizePoll is how often a running Sanitize is asked how far it is.
var sanitizePoll = 2 * time.Second

func sanitizeNVMe(ctx context.Context, d nvmeDevice, action uint32, progress func(string)) error {
	if err := d.admin(0x84, 0, action, 0, nil, time.Minute); err != nil {
		return err
	}
	log := make([]byte, 512)
	last := -1
	for fails := 0; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(sanitizePoll):
		}
		if err := d.admin(0x02, 0xffffffff, 0x81|(512/4-1)<<16, 0, log, 30*time.Second); err != nil {
			if fails++; fails > 10 {
				return fmt.Errorf("sanitize status: %w", err)
			}
			continue
		}
		switch status := binary.LittleEndian.Uint16(log[2:]) & 7; status {
		case 1, 4:
			return nil
		case 2:
			if pct := int(binary.LittleEndian.Uint16(log)) * 100 / 65536; pct/10 != last/10 || last < 0 {
				last = pct
				progress(fmt.Sprintf("%d %%", pct))
			}
		case 3:
			return errors.New("the drive says that its sanitize operation failed")
		default:
			return fmt.Errorf("the drive reports sanitize status %d", status)
		}
	}
}

// ataSecurity is what a drive's IDENTIFY data says of erasing.
type ataSecurity struct {
	supported, enabled, locked, frozen, expired, enhanced bool
	sanitize, crypto, blockErase                          bool
	minutes                                               int // what the drive says that it takes; 0: it does not
}

func parseATA(id []byte) ataSecurity {
	word := func(n int) uint16 { return binary.LittleEndian.Uint16(id[2*n:]) }
	bit := func(n, b int) bool { return word(n)>>b&1 != 0 }
	a := ataSecurity{supported: bit(82, 1) && bit(128, 0), enabled: bit(128, 1), locked: bit(128, 2), frozen: bit(128, 3), expired: bit(128, 4), enhanced: bit(128, 5),
		sanitize: bit(59, 12), crypto: bit(59, 13), blockErase: bit(59, 15)}
	w := word(89)
	if a.enhanced {
		w = word(90)
	}
	if w&0x8000 != 0 {
		a.minutes = int(w&0x7fff) * 2
	} else {
		a.minutes = int(w&0xff) * 2
	}
	return a
}

// ataDevice is a drive that takes ATA commands.
type ataDevice interface {
	identify() ([]byte, error)
	hdparm(ctx context.Context, args ...string) ([]string, error)
}

type ataFile struct {
	f    *os.File
	path string
	cmd  commander
}

func (a ataFile) identify() ([]byte, error) {
	const getIdentity = 0x030d // HDIO_GET_IDENTITY
	id := make([]byte, 512)
	return id, ioctl(a.f, getIdentity, unsafe.Pointer(&id[0]))
}

func (a ataFile) hdparm(ctx context.Context, args ...string) (lines []string, err error) {
	c := commander{log: func(s string) {
		lines = append(lines, s)
		if a.cmd.log != nil {
			a.cmd.log(s)
		}
	}}
	err = c.run(ctx, "hdparm", append(args, a.path)...)
	return lines, err
}

// ataPassword is set for the erase and forgotten by the drive when it is done. It protects nothing, and is always the same: a drive whose
// erase was cut off by a loss of power is locked with it, and can be unlocked.
const ataPassword = "ingot"

// eraseATA lets a drive erase itself: by Sanitize, which firmware does not freeze, else by the security feature.
func eraseATA(ctx context.Context, d ataDevice, progress func(string)) (how string, err error) {
	id, err := d.identify()
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoSecureErase, err)
	}
	a := parseATA(id)
	var tried error
	for _, w := range []struct {
		name, arg string
		can       bool
	}{{"ATA sanitize, cryptographic", "--sanitize-crypto-scramble", a.sanitize && a.crypto}, {"ATA sanitize, block erase", "--sanitize-block-erase", a.sanitize && a.blockErase}} {
		if !w.can || a.locked {
			continue
		}
		err := sanitizeATA(ctx, d, w.arg, progress)
		if err == nil {
			return w.name, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		tried = errors.Join(tried, fmt.Errorf("%s: %w", w.name, err))
	}
	refuse := func(why string) (string, error) {
		return "", fmt.Errorf("%w: %w", errNoSecureErase, errors.Join(tried, errors.New(why)))
	}
	switch {
	case !a.supported:
		return refuse("it has no security feature")
	case a.frozen:
		return refuse("the machine's firmware froze its security feature at power-on")
	case a.expired:
		return refuse("it takes no more passwords until its power is switched off")
	case a.locked || a.enabled: // of an erase that was cut off, or of somebody who knows his own password
		if a.locked {
			if _, err := d.hdparm(ctx, "--user-master", "u", "--security-unlock", ataPassword); err != nil {
				return refuse("it is locked with a password that is not known")
			}
		}
		if _, err := d.hdparm(ctx, "--user-master", "u", "--security-disable", ataPassword); err != nil {
			return refuse("it has a password that is not known")
		}
	}
	if a.minutes > 0 {
		progress(fmt.Sprintf("the drive says that it takes %d minutes", a.minutes))
	}
	if _, err := d.hdparm(ctx, "--user-master", "u", "--security-set-pass", ataPassword); err != nil {
		return "", fmt.Errorf("%w: %w", errNoSecureErase, err)
	}
	how, arg := "ATA security erase", "--security-erase"
	if a.enhanced {
		how, arg = "ATA security erase, enhanced", "--security-erase-enhanced"
	}
	if _, err := d.hdparm(ctx, "--user-master", "u", arg, ataPassword); err != nil {
		_, derr := d.hdparm(context.WithoutCancel(ctx), "--user-master", "u", "--security-disable", ataPassword)
		return "", fmt.Errorf("%w: %w", errNoSecureErase, errors.Join(err, derr))
	}
	return how, nil
}

func sanitizeATA(ctx context.Context, d ataDevice, arg string, progress func(string)) error {
	if _, err := d.hdparm(ctx, "--yes-i-know-what-i-am-doing", arg); err != nil {
		return err
	}
	last := ""
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(sanitizePoll):
		}
		lines, err := d.hdparm(ctx, "--sanitize-status")
		if err != nil {
			return err
		}
		text := strings.ToLower(strings.Join(lines, "\n"))
		switch {
		case strings.Contains(text, "sanitize operation completed without error"), strings.Contains(text, "completed without error"):
			return nil
		case strings.Contains(text, "failed"), strings.Contains(text, "completed with error"):
			return errors.New("the drive says that its sanitize operation failed")
		case strings.Contains(text, "in process"), strings.Contains(text, "in progress"):
			if now := strings.TrimSpace(lines[len(lines)-1]); now != last {
				last = now
				progress(now)
			}
		default:
			return fmt.Errorf("the drive's sanitize state is not understood: %s", clip(printable(text), 200))
		}
	}
}
