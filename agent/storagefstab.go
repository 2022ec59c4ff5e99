package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"unsafe"

	"github.com/ingot-metal/ingot/api"
	"golang.org/x/sys/unix"
)

// swapFile is the swap file of InstallPlan.SwapSize.
const swapFile = "/swap.img"

// fstab names file systems by UUID, outermost first. copies says that /boot/efi has copies on other disks: then the system starts
// without its own, too.
func (p *storagePlan) fstab(copies, swapImage bool) string {
	var b strings.Builder
	b.WriteString("# Written by ingot-agent at installation.\n")
	for _, m := range p.sortedMounts() {
		opts := firstOf(m.Options, "defaults")
		if m.Device == "" {
			fmt.Fprintf(&b, "%s %s %s %s 0 0\n", m.FSType, m.Path, m.FSType, opts)
			continue
		}
		f := p.byID[m.Device]
		fs, pass := f.FSType, 2
		switch {
		case fs == "xfs" || fs == "btrfs":
			pass = 0
		case m.Path == "/":
			pass = 1
		case strings.Contains(fs, "fat"):
			fs, pass = "vfat", 1
			if m.Options == "" {
				opts = "umask=0077"
			}
		}
		if m.Path == "/boot/efi" && copies {
			opts += ",nofail,x-systemd.device-timeout=30s"
		}
		fmt.Fprintf(&b, "UUID=%s %s %s %s 0 %d\n", fsUUID(f), m.Path, fs, opts, pass)
	}
	for i := range p.items {
		m := &p.items[i]
		if f := p.byID[m.Device]; m.Type == api.StorageMount && f != nil && f.FSType == "swap" {
			fmt.Fprintf(&b, "UUID=%s none swap %s 0 0\n", f.UUID, firstOf(m.Options, "sw"))
		}
	}
	if swapImage {
		b.WriteString(swapFile + " none swap sw 0 0\n")
	}
	return b.String()
}

// fsUUID is a file system's UUID as blkid and fstab write it.
func fsUUID(f *api.StorageItem) string {
	if u := strings.ReplaceAll(f.UUID, "-", ""); strings.Contains(f.FSType, "fat") && len(u) == 8 {
		return strings.ToUpper(u[:4] + "-" + u[4:])
	}
	return f.UUID
}

// sortedMounts are the mounts outermost first; swap is not among them.
func (p *storagePlan) sortedMounts() []*api.StorageItem {
	var out []*api.StorageItem
	for _, m := range p.mounts {
		out = append(out, m)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out
}

// mdadmConf names the arrays, so that they come back under their own names.
func (p *storagePlan) mdadmConf() string {
	var b strings.Builder
	b.WriteString("# Written by ingot-agent at installation.\nHOMEHOST <system>\nMAILADDR root\n")
	for i := range p.items {
		if it := &p.items[i]; it.Type == api.StorageRAID {
			fmt.Fprintf(&b, "ARRAY %s metadata=1.2 UUID=%s\n", arrayNode(it.Name), arrayUUID(it.UUID))
		}
	}
	return b.String()
}

// mount assembles the new system, outermost first. What lives in memory is for the installed system only.
func (in *installer) mount() error {
	for _, m := range in.storage.sortedMounts() {
		if m.Device == "" {
			continue
		}
		f := in.storage.byID[m.Device]
		at := filepath.Join(in.mountAt, m.Path)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		fs := f.FSType
		if strings.Contains(fs, "fat") {
			fs = "vfat"
		}
		dev := in.devices[f.Volume].path
		if err := unix.Mount(dev, at, fs, unix.MS_NOATIME, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", dev, m.Path, err)
		}
		in.mounts = append(in.mounts, at)
	}
	r, err := os.OpenRoot(in.mountAt)
	in.root = r
	return err
}

// makeSwapFile reserves the swap file's blocks.
func (in *installer) makeSwapFile(size int64) error {
	name := strings.TrimPrefix(swapFile, "/")
	if err := in.root.Remove(name); err != nil && !os.IsNotExist(err) {
		return err
	}
	f, err := in.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; size > free-64*mib {
		return fmt.Errorf("a swap file of %d MiB does not fit: the root file system has %d MiB left; make it smaller (swap_size) or the root larger", size/mib, free/mib)
	}
	const btrfsMagic = 0x9123683e
	if int64(st.Type) == btrfsMagic { // swap needs blocks that stay where they are
		flags := int32(0x00800000) // FS_NOCOW_FL
		if err := ioctl(f, unix.FS_IOC_SETFLAGS, unsafe.Pointer(&flags)); err != nil {
			return fmt.Errorf("%s: %w", swapFile, err)
		}
	}
	size = size / 4096 * 4096
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		buf := make([]byte, mib)
		for at := int64(0); at < size; at += int64(len(buf)) {
			if _, err := f.WriteAt(buf[:min(int64(len(buf)), size-at)], at); err != nil {
				return fmt.Errorf("%s: %w", swapFile, err)
			}
		}
	}
	return f.Sync()
}
