package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// thenSwitchRoot is how a boot goes on when the system was unpacked into memory: process 1 becomes its init.
const thenSwitchRoot = "switch-root"

// memoryRoot is where a system that lives in memory is assembled: not below /run, which would have to be moved into itself.
const memoryRoot = "/sysroot"

// memoryReserve is left free of the system's files: for the programs that run on it.
const memoryReserve = 192 * mib

// memoryRoom is how large the file system of a machine with that much memory may become.
func memoryRoom(s system) (room, total int64, err error) {
	var available int64
	for _, l := range strings.Split(s.read("proc/meminfo"), "\n") {
		w := strings.Fields(l)
		if len(w) < 2 {
			continue
		}
		n, err := strconv.ParseInt(w[1], 10, 64)
		if err != nil {
			continue
		}
		switch w[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			available = n << 10
		}
	}
	if total <= 0 || available <= 0 {
		return 0, 0, errors.New("the kernel does not say how much memory there is")
	}
	return max(0, available-max(memoryReserve, total/8)), total, nil
}

// runMemory unpacks the system into memory. Nothing is done to any disk.
func (in *installer) runMemory(ctx context.Context, stage func(name, description string, f func() error)) {
	var room, total int64
	stage(stagePartition, "Preparing memory", func() (err error) {
		if err := in.checkSystemPlan(); err != nil {
			return err
		}
		if yes, _ := wholeDisk(in.plan.Image.Type); yes {
			return fmt.Errorf("refused: an image of a whole disk (%s) cannot be deployed to memory; that takes a root file system (squashfs, tgz, txz)", in.plan.Image.Type)
		}
		if len(in.plan.Storage) > 0 {
			return errors.New("refused: the plan is for memory and names disks")
		}
		if room, total, err = memoryRoom(system{"/"}); err != nil {
			return err
		}
		if in.plan.Image.Size > room {
			return in.noRoom(room, total, nil)
		}
		if err := os.MkdirAll(in.mountAt, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", in.mountAt, "tmpfs", 0, fmt.Sprintf("mode=0755,size=%d,nr_inodes=0", room)); err != nil {
			return fmt.Errorf("mount tmpfs: %w", err)
		}
		in.mounts = append(in.mounts, in.mountAt)
		in.rep.Logf("%d MiB of this machine's %d MiB are for the system's files", room/mib, total/mib)
		in.root, err = os.OpenRoot(in.mountAt)
		return err
	})
	stage(stageExtract, "Installing OS", func() error {
		err := in.extract(ctx)
		if err != nil && (errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "room for") || strings.Contains(err.Error(), "larger than")) {
			return in.noRoom(room, total, err)
		}
		return err
	})
	stage(stageNetwork, "Configuring network", func() error { return in.network() })
	stage(stageCurthooks, "Configuring OS", func() error {
		if err := in.configureMemory(); err != nil {
			return err
		}
		if err := in.lendModules(ctx, "/lib/modules/ingot", system{"/"}.read("proc/sys/kernel/osrelease")); err != nil {
			return err
		}
		if _, err := initOf(in.mountAt); err != nil {
			return err
		}
		in.root.Close()
		in.root, in.mounts = nil, nil // it stays
		return nil
	})
}

// noRoom says in a sentence that the image and this machine do not go together.
func (in *installer) noRoom(room, total int64, why error) error {
	err := fmt.Errorf("the image does not fit into this machine's memory: of %d MiB, %d MiB are there for its files, and it has %d MiB packed; deploy it to the machine's disk, or choose a machine with more memory",
		total/mib, room/mib, in.plan.Image.Size/mib)
	if why != nil {
		err = fmt.Errorf("%w (%w)", err, why)
	}
	return err
}

// configureMemory writes what makes the system this machine's own.
func (in *installer) configureMemory() error {
	if err := in.seedImage(imageSystem{kind: kindLinux}); err != nil {
		return err
	}
	return in.write(outFile{"/etc/fstab", "# The system was deployed to memory by ingot-agent: no disk is mounted.\n", 0o644})
}

// lendModules gives the system the modules of the kernel that it will run on, when it does not have them.
func (in *installer) lendModules(ctx context.Context, from, release string) error {
	if release == "" || strings.ContainsAny(release, "/") {
		return fmt.Errorf("the kernel calls itself %q", release)
	}
	lib := "lib/modules"
	if fi, err := in.root.Lstat("lib"); err == nil && fi.Mode()&fs.ModeSymlink != 0 { // usr-merged
		lib = "usr/lib/modules"
	}
	dir := path.Join(lib, release)
	if in.has(path.Join(dir, "modules.dep")) {
		in.rep.Logf("the image has the modules of kernel %s", release)
		return nil
	}
	names, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("this kernel's modules: %w", err)
	}
	if err := in.root.MkdirAll(path.Join(dir, "kernel"), 0o755); err != nil {
		return err
	}
	n := 0
	for _, e := range names {
		if !strings.Contains(e.Name(), ".ko") || !e.Type().IsRegular() {
			continue
		}
		if err := copyIn(filepath.Join(from, e.Name()), in.root, path.Join(dir, "kernel", e.Name())); err != nil {
			return err
		}
		n++
	}
	in.rep.Logf("%d modules of kernel %s were given to the system", n, release)
	if find(in.mountAt, "depmod") == "" {
		return errors.New("the image has no depmod: it could not use this kernel's modules; use an image that has the package kmod")
	}
	return in.cmd.runIn(ctx, in.mountAt, nil, "depmod", release)
}

func copyIn(from string, root *os.Root, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := root.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// initOf is the path of a system's init, as seen from inside.
func initOf(root string) (string, error) {
	for _, p := range []string{"/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"} {
		if followIn(root, p) {
			return p, nil
		}
	}
	return "", errors.New("the image has no /sbin/init: there is nothing to start")
}

// followIn tells whether p is a regular, executable file when links are followed as from inside root.
func followIn(root, p string) bool {
	at := "/"
	rest := strings.Split(strings.Trim(p, "/"), "/")
	for links := 0; len(rest) > 0; {
		next := path.Join(at, rest[0])
		fi, err := os.Lstat(filepath.Join(root, next))
		if err != nil {
			return false
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			at, rest = next, rest[1:]
			if len(rest) == 0 {
				return fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
			}
			continue
		}
		if links++; links > 20 {
			return false
		}
		to, err := os.Readlink(filepath.Join(root, next))
		if err != nil {
			return false
		}
		if path.IsAbs(to) {
			at = "/"
		}
		rest = append(strings.Split(strings.Trim(to, "/"), "/"), rest[1:]...)
	}
	return false
}

// switchRoot makes the system at newRoot this machine's and process 1 its init. It only returns when that failed before the point of no
// return, and otherwise not at all.
func switchRoot(newRoot string, console *os.File) error {
	start, err := initOf(newRoot)
	if err != nil {
		return err
	}
	endOthers()
	s := system{"/"}
	for _, n := range s.list("sys/class/net") { // the system sets its interfaces up itself
		if s.physical(n) {
			_ = setFlags(n, 0, unix.IFF_UP)
		}
	}
	for _, d := range []string{"/dev", "/proc", "/sys"} {
		if err := os.MkdirAll(newRoot+d, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(d, newRoot+d, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", d, err)
		}
	}
	for _, d := range []string{"/run", "/tmp"} {
		_ = unix.Unmount(d, unix.MNT_DETACH)
	}
	emptyInitramfs("/")
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the new root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	for fd := range 3 {
		_ = unix.Dup2(int(console.Fd()), fd)
	}
	return unix.Exec(start, []string{start}, []string{"PATH=" + strings.Join(searchPath, ":"), "TERM=linux", "HOME=/"})
}

// endOthers ends every other process and reaps it.
func endOthers() {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if unix.Kill(-1, sig) != nil { // nobody is left
			return
		}
		for i := 0; i < 20; i++ {
			var ws unix.WaitStatus
			if _, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil); err == unix.ECHILD {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// emptyInitramfs frees the memory of the files that nobody can reach any more. It stays on one file system, and does nothing on one that
// is not an initramfs.
func emptyInitramfs(dir string) {
	var st unix.Statfs_t
	const ramfs, tmpfs = 0x858458f6, 0x01021994
	if unix.Statfs(dir, &st) != nil || st.Type != ramfs && st.Type != tmpfs {
		return
	}
	var top unix.Stat_t
	if unix.Lstat(dir, &top) != nil {
		return
	}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || unix.Lstat(p, &st) != nil {
			return nil
		}
		if st.Dev != top.Dev {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.IsDir() {
			_ = os.Remove(p)
		}
		return nil
	})
}
