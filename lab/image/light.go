package image

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// lightVersion changes when packLight makes something else from the same files.
const lightVersion = "3"

// lightPrograms are what ingot-agent calls in the light environment, and what scripts and people at its console want, as paths of the
// Debian tree.
var lightPrograms = []string{"sbin/mke2fs", "sbin/resize2fs", "sbin/e2fsck", "sbin/badblocks", "sbin/mkfs.fat", "sbin/mkfs.xfs", "sbin/mkfs.btrfs", "sbin/mkswap",
	"sbin/mdadm", "sbin/lvm", "sbin/dmsetup", "usr/sbin/make-bcache", "usr/sbin/bcache-super-show", "sbin/sfdisk", "sbin/blkdiscard", "bin/lsblk", "sbin/blkid",
	"usr/bin/unsquashfs", "usr/bin/xz", "usr/bin/zstd", "bin/bzip2", "sbin/hdparm", "usr/sbin/nvme", "usr/sbin/smartctl", "usr/sbin/memtester", "sbin/ethtool",
	"bin/efibootmgr", "bin/bash"}

// lightLinks are their other names.
var lightLinks = map[string]string{"sbin/mkfs.ext2": "mke2fs", "sbin/mkfs.ext3": "mke2fs", "sbin/mkfs.ext4": "mke2fs", "sbin/mkfs.vfat": "mkfs.fat",
	"sbin/vgchange": "lvm", "sbin/vgs": "lvm", "sbin/lvs": "lvm", "sbin/pvs": "lvm",
	// the kernel asks for modules through this name, and gets them from the agent
	"sbin/modprobe": "../init"}

// busyboxLinks are the programs that busybox stands for: enough for a shell script.
var busyboxLinks = strings.Fields("sh ls cat ip mount umount dmesg vi ps df hexdump ping wget less awk sed grep egrep cut head tail sort uniq tr wc dd sleep date mkdir " +
	"rmdir rm cp mv ln chmod chown touch find xargs tee test [ echo printf seq uname hostname id env timeout nproc free uptime top kill killall lsmod losetup md5sum sha256sum " +
	"base64 gzip gunzip zcat tar blockdev sync readlink realpath basename dirname stat mktemp true false expr tty clear cmp diff du od")

// lightData are files that the programs read.
var lightData = []string{"etc/mke2fs.conf", "etc/os-release"}

func lightFilesVersion() string {
	return hash(append(append(append([]string{}, lightPrograms...), lightData...), embedded("files/light.modules"), strings.Join(slices.Sorted(maps.Keys(lightLinks)), " "), "2")...)
}

// collectLight copies from the Debian tree what the light initramfs needs: programs with their libraries, and the kernel modules of
// light.modules with what those depend on.
func collectLight(root, out string) error {
	for _, p := range lightPrograms {
		if err := copyProgram(root, p, out, map[string]bool{}); err != nil {
			return err
		}
	}
	for _, p := range lightData {
		if err := copyFile(filepath.Join(root, p), filepath.Join(out, p), 0o644); err != nil {
			return err
		}
	}
	for l, to := range lightLinks {
		if err := os.Symlink(to, filepath.Join(out, l)); err != nil {
			return err
		}
	}
	return collectModules(root, filepath.Join(out, "lib/modules/ingot"))
}

var libraryDirs = []string{"lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "lib", "usr/lib"}

// resolve follows symbolic links of the tree as if it were the root.
func resolve(root, p string) (string, error) {
	for i := 0; i < 20; i++ {
		full := filepath.Join(root, p)
		fi, err := os.Lstat(full)
		if err != nil {
			// a directory on the way may be a link (lib → usr/lib)
			dir, err2 := filepath.EvalSymlinks(filepath.Join(root, filepath.Dir(p)))
			if err2 != nil {
				return "", err
			}
			full = filepath.Join(dir, filepath.Base(p))
			if fi, err = os.Lstat(full); err != nil {
				return "", err
			}
		}
		if fi.Mode()&os.ModeSymlink == 0 {
			return full, nil
		}
		to, err := os.Readlink(full)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(to, "/") {
			p = to[1:]
		} else {
			p = filepath.Join(filepath.Dir(p), to)
		}
	}
	return "", fmt.Errorf("%s: too many links", p)
}

// copyProgram copies an ELF file, its interpreter and, recursively, the libraries it names.
func copyProgram(root, p, out string, seen map[string]bool) error {
	if seen[p] {
		return nil
	}
	seen[p] = true
	full, err := resolve(root, p)
	if err != nil {
		return err
	}
	if err := copyFile(full, filepath.Join(out, p), 0o755); err != nil {
		return err
	}
	e, err := elf.Open(full)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	defer e.Close()
	for _, pr := range e.Progs {
		if pr.Type == elf.PT_INTERP {
			b := make([]byte, pr.Filesz)
			if _, err := pr.ReadAt(b, 0); err != nil && err != io.EOF {
				return err
			}
			if err := copyProgram(root, strings.Trim(string(b), "\x00/"), out, seen); err != nil {
				return err
			}
		}
	}
	libs, err := e.ImportedLibraries()
	if err != nil {
		return err
	}
next:
	for _, l := range libs {
		for _, d := range libraryDirs {
			if _, err := resolve(root, d+"/"+l); err == nil {
				if err := copyProgram(root, d+"/"+l, out, seen); err != nil {
					return err
				}
				continue next
			}
		}
		return fmt.Errorf("%s needs %s, which is not in the tree", p, l)
	}
	return nil
}

func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
}

func eachLine(p string, f func(string) error) error {
	h, err := os.Open(p)
	if err != nil {
		return err
	}
	defer h.Close()
	s := bufio.NewScanner(h)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if err := f(s.Text()); err != nil {
			return err
		}
	}
	return s.Err()
}

// collectModules copies the listed modules with their dependencies, and the lines of modules.dep and modules.alias that speak of them.
func collectModules(root, out string) error {
	dirs, _ := filepath.Glob(filepath.Join(root, "lib/modules/*"))
	if len(dirs) != 1 {
		return fmt.Errorf("the tree has %d kernels", len(dirs))
	}
	src := dirs[0]
	deps := map[string][]string{}
	if err := eachLine(filepath.Join(src, "modules.dep"), func(l string) error {
		f, rest, _ := strings.Cut(l, ":")
		deps[moduleName(f)] = append([]string{f}, strings.Fields(rest)...)
		return nil
	}); err != nil {
		return err
	}
	take := map[string]bool{}
	for _, l := range strings.Split(embedded("files/light.modules"), "\n") {
		w := strings.Fields(l)
		if len(w) != 2 || w[0] == "#" {
			continue
		}
		fs := deps[strings.ReplaceAll(w[1], "-", "_")] // built in, or not in this kernel: nothing to copy
		if len(fs) > 0 {
			if _, err := os.Stat(filepath.Join(src, fs[0])); err != nil { // left out of the tree
				continue
			}
		}
		for _, f := range fs {
			take[f] = true
		}
	}
	if len(take) == 0 {
		return errors.New("no module of the list is in the tree")
	}
	var list []string
	names := map[string]bool{}
	for f := range take {
		list = append(list, f)
		names[moduleName(f)] = true
		if err := copyFile(filepath.Join(src, f), filepath.Join(out, filepath.Base(f)), 0o644); err != nil {
			return err
		}
	}
	sort.Strings(list)
	var dep strings.Builder
	for _, f := range list {
		d := deps[moduleName(f)]
		dep.WriteString(filepath.Base(d[0]) + ":")
		for _, x := range d[1:] {
			dep.WriteString(" " + filepath.Base(x))
		}
		dep.WriteString("\n")
	}
	var alias strings.Builder
	if err := eachLine(filepath.Join(src, "modules.alias"), func(l string) error {
		if w := strings.Fields(l); len(w) == 3 && names[strings.ReplaceAll(w[2], "-", "_")] {
			alias.WriteString(l + "\n")
		}
		return nil
	}); err != nil {
		return err
	}
	for n, c := range map[string]string{"modules.dep": dep.String(), "modules.alias": alias.String(), "list": embedded("files/light.modules")} {
		if err := os.WriteFile(filepath.Join(out, n), []byte(c), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// packLight writes the initramfs: the collected files, busybox for people at the console, and the agent as /init.
func packLight(light, agent, busybox, out string) (err error) {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(8<<20))
	if err != nil {
		return err
	}
	c := &cpio{w: z, dirs: map[string]bool{}}
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "etc", "bin", "sbin", "usr/bin", "usr/sbin"} {
		if err := c.mkdir(d); err != nil {
			return err
		}
	}
	// the kernel gives /init its console from here, before devtmpfs is mounted
	if err := c.header("dev/console", 0o020600, 0, 5, 1); err != nil {
		return err
	}
	if err := c.file("init", agent, 0o755); err != nil {
		return err
	}
	if err := c.file("bin/busybox", busybox, 0o755); err != nil {
		return err
	}
	for _, n := range busyboxLinks {
		if err := c.link("bin/"+n, "busybox"); err != nil {
			return err
		}
	}
	err = filepath.WalkDir(light, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(light, p)
		if err != nil || rel == "." {
			return err
		}
		switch {
		case d.IsDir():
			return c.mkdir(rel)
		case d.Type()&os.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return c.link(rel, to)
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		return c.file(rel, p, uint32(fi.Mode().Perm()))
	})
	if err != nil {
		return err
	}
	if err := c.header("TRAILER!!!", 0, 0, 0, 0); err != nil {
		return err
	}
	return z.Close()
}

// cpio writes the "newc" format that the kernel unpacks. Times and owners are zero: equal input makes equal output.
type cpio struct {
	w    io.Writer
	dirs map[string]bool
	ino  int
	n    int64
}

func (c *cpio) write(b []byte) error {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return err
}

func (c *cpio) pad() error {
	if r := c.n % 4; r != 0 {
		return c.write(make([]byte, 4-r))
	}
	return nil
}

func (c *cpio) header(name string, mode uint32, size int64, major, minor int) error {
	c.ino++
	h := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", c.ino, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0, name)
	if err := c.write([]byte(h)); err != nil {
		return err
	}
	return c.pad()
}

func (c *cpio) mkdir(name string) error {
	if c.dirs[name] || name == "." {
		return nil
	}
	if err := c.mkdir(filepath.Dir(name)); err != nil {
		return err
	}
	c.dirs[name] = true
	return c.header(name, 0o040755, 0, 0, 0)
}

func (c *cpio) file(name, from string, mode uint32) error {
	if err := c.mkdir(filepath.Dir(name)); err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := c.header(name, 0o100000|mode, int64(len(b)), 0, 0); err != nil {
		return err
	}
	if err := c.write(b); err != nil {
		return err
	}
	return c.pad()
}

func (c *cpio) link(name, to string) error {
	if err := c.mkdir(filepath.Dir(name)); err != nil {
		return err
	}
	if err := c.header(name, 0o120777, int64(len(to)), 0, 0); err != nil {
		return err
	}
	if err := c.write([]byte(to)); err != nil {
		return err
	}
	return c.pad()
}
