package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// systemKind is what was found on a whole-disk image.
type systemKind string

const (
	kindLinux   systemKind = "linux"
	kindWindows systemKind = "windows"
	kindCore    systemKind = "core"    // Ubuntu Core
	kindOther   systemKind = "unknown" // nothing but a /curtin directory: the image's own hooks know
)

// volume is a place where a file system may be: a partition, or a logical volume in one.
type volume struct {
	device, fs string
	options    string // for mount
	typ        string // of the partition
}

// imageSystem is the system that a whole-disk image holds, mounted.
type imageSystem struct {
	kind   systemKind
	device string
	prefix string // where /etc is, for Ubuntu Core
	curtin bool   // has a /curtin directory
}

// probeFS tells by the superblock what a device holds; "" for what the agent does not know.
func probeFS(r io.ReaderAt) string {
	b := make([]byte, 0x10048)
	n, _ := r.ReadAt(b, 0)
	b = b[:n]
	at := func(off int, s string) bool { return len(b) >= off+len(s) && string(b[off:off+len(s)]) == s }
	switch {
	case at(0, "XFSB"):
		return "xfs"
	case at(3, "NTFS    "):
		return "ntfs3"
	case at(0x36, "FAT1"), at(0x52, "FAT32"):
		return "vfat"
	case at(0x438, "\x53\xef"):
		return "ext4"
	case at(0x10040, "_BHRfS_M"):
		return "btrfs"
	case at(0, "hsqs"):
		return "squashfs"
	case at(0x218, "LVM2 001"), at(0x18, "LVM2 001"), at(0x418, "LVM2 001"), at(0x618, "LVM2 001"):
		return "lvm"
	}
	return ""
}

// volumes lists what the disk's partitions hold. Logical volumes are switched on for it; closeVolumes switches them off.
func (in *installer) volumes(ctx context.Context, t target) ([]volume, error) {
	f, err := t.open()
	if err != nil {
		return nil, err
	}
	table, err := readTable(f, t.disk.Size, t.disk.BlockSize)
	f.Close()
	if err != nil {
		return nil, err
	}
	var out []volume
	lvm := false
	for _, p := range table.parts {
		dev := t.partition(p.number)
		if err := waitDevice(ctx, t, dev, p); err != nil {
			return nil, err
		}
		h, err := os.Open(dev)
		if err != nil {
			return nil, err
		}
		fs := probeFS(h)
		h.Close()
		lvm = lvm || fs == "lvm"
		out = append(out, volume{device: dev, fs: fs, typ: p.typ})
	}
	if lvm {
		lvs, err := in.logicalVolumes(ctx, t)
		if err != nil {
			return nil, err
		}
		out = append(out, lvs...)
	}
	var all []volume
	for _, v := range out {
		all = append(all, v)
		if v.fs == "xfs" {
			all[len(all)-1].options = "nouuid"
		}
		if v.fs == "btrfs" { // where distributions put their root
			for _, sub := range []string{"root", "@", "@rootfs", "@/.snapshots/1/snapshot"} {
				all = append(all, volume{v.device, v.fs, "subvol=" + sub, v.typ})
			}
		}
	}
	return all, nil
}

// waitDevice waits for the node of a partition and compares its place with the table's.
func waitDevice(ctx context.Context, t target, dev string, p diskPart) error {
	return waitPartition(ctx, t, dev, tablePart{number: p.number, start: p.start, end: p.start + p.size})
}

// logicalVolumes activates the volume groups that lie on the target's partitions, and lists their volumes.
func (in *installer) logicalVolumes(ctx context.Context, t target) (out []volume, err error) {
	if find("/", "lvm") == "" {
		return nil, errors.New("the image's system lies in logical volumes, and this environment has no LVM tools")
	}
	if err := in.cmd.run(ctx, "lvm", "vgchange", "--activate", "y", "--sysinit"); err != nil {
		return nil, err
	}
	s := system{"/"}
	for i := 0; i < 50; i++ {
		for _, n := range s.list("sys/block") {
			if !strings.HasPrefix(n, "dm-") {
				continue
			}
			for _, slave := range s.list("sys/block", n, "slaves") {
				if !strings.HasPrefix(slave, t.disk.Name) {
					continue
				}
				dev := "/dev/" + n
				if _, err := os.Stat(dev); err != nil {
					continue
				}
				h, err := os.Open(dev)
				if err != nil {
					return nil, err
				}
				out = append(out, volume{device: dev, fs: probeFS(h)})
				h.Close()
				break
			}
		}
		if len(out) > 0 {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil, errors.New("the image has a physical volume of LVM, but no logical volume came up")
}

// closeVolumes lets go of logical volumes, so that the disk can be left.
func (in *installer) closeVolumes(ctx context.Context) {
	if find("/", "lvm") != "" {
		_ = in.cmd.run(ctx, "lvm", "vgchange", "--activate", "n", "--sysinit")
	}
}

// fold finds a path below root whatever the case of its letters: Windows does not care, and its file system here does. Components that
// do not exist yet stay as they are written.
func fold(root *os.Root, p string) string {
	var have string
	for _, w := range strings.Split(strings.Trim(path.Clean("/"+p), "/"), "/") {
		next := path.Join(have, w)
		if _, err := root.Lstat(next); err != nil {
			if d, err := root.Open(firstOf(have, ".")); err == nil {
				names, _ := d.Readdirnames(-1)
				d.Close()
				if i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, w) }); i >= 0 {
					next = path.Join(have, names[i])
				}
			}
		}
		have = next
	}
	return have
}

// recognise tells what a mounted file system is the root of; rank orders candidates as MAAS's installer does. Rank 0: none.
func recognise(root *os.Root) (s imageSystem, rank int) {
	has := func(p string) bool { _, err := root.Stat(fold(root, p)); return err == nil }
	s.curtin = has("curtin")
	switch {
	case has("etc/os-release"), has("usr/lib/os-release"):
		s.kind, rank = kindLinux, 2
	case has("system-data/var/lib/snapd"):
		s.kind, s.prefix, rank = kindCore, "system-data", 3
	case has("Windows/System32"):
		s.kind, rank = kindWindows, 1
	case has("snaps") && has("systems"):
		s.kind, s.prefix, rank = kindCore, "data", 3
	}
	if s.curtin {
		if rank = 4; s.kind == "" {
			s.kind = kindOther
		}
	}
	return s, rank
}

// openSystem finds the installed system on the disk and mounts it.
func (in *installer) openSystem(ctx context.Context, t target) (imageSystem, error) {
	vols, err := in.volumes(ctx, t)
	if err != nil {
		return imageSystem{}, err
	}
	if in.plan.Firmware == "uefi" {
		if err := in.removableLoader(vols); err != nil {
			return imageSystem{}, err
		}
	}
	if err := os.MkdirAll(in.mountAt, 0o755); err != nil {
		return imageSystem{}, err
	}
	var best imageSystem
	var at volume
	rank := 0
	var seen []string
	for _, v := range vols {
		if v.fs == "" || v.fs == "lvm" || v.typ == typeESP {
			continue
		}
		if err := unix.Mount(v.device, in.mountAt, v.fs, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, v.options); err != nil {
			if !strings.HasPrefix(v.options, "subvol=") {
				seen = append(seen, fmt.Sprintf("%s (%s: %v)", v.device, v.fs, err))
				in.rep.Logf("%s holds %s, which cannot be mounted: %v", v.device, v.fs, err)
			}
			continue
		}
		root, err := os.OpenRoot(in.mountAt)
		if err == nil {
			if s, r := recognise(root); r > rank {
				best, at, rank = s, v, r
			}
			root.Close()
		}
		if uerr := unix.Unmount(in.mountAt, 0); uerr != nil {
			return imageSystem{}, uerr
		}
		if err != nil {
			return imageSystem{}, err
		}
		seen = append(seen, fmt.Sprintf("%s (%s)", v.device, v.fs))
	}
	if rank == 0 {
		return imageSystem{}, fmt.Errorf("no operating system was found on the image: no partition has /curtin, /etc/os-release or Windows/System32; looked at %s", firstOf(strings.Join(seen, ", "), "no file system at all"))
	}
	if err := unix.Mount(at.device, in.mountAt, at.fs, unix.MS_NOATIME, at.options); err != nil {
		if at.fs == "ntfs3" {
			err = fmt.Errorf("%w (Windows was not shut down cleanly when the image was made, or it is hibernated: generalise it with sysprep /shutdown)", err)
		}
		return imageSystem{}, fmt.Errorf("mount %s: %w", at.device, err)
	}
	in.mounts = append(in.mounts, in.mountAt)
	best.device = at.device
	in.rep.Logf("%s (%s) holds the system: %s", at.device, at.fs, best.kind)
	in.root, err = os.OpenRoot(in.mountAt)
	return best, err
}

// efiName is this architecture's name of the loader that firmware starts by itself.
func efiName() string {
	if DebianArch() == "arm64" {
		return "BOOTAA64.EFI"
	}
	return "BOOTX64.EFI"
}

// loaders are those that an image may have installed, as the end of a path below EFI.
func loaders() []string {
	if DebianArch() == "arm64" {
		return []string{"shimaa64.efi", "grubaa64.efi", "Microsoft/Boot/bootmgfw.efi", "systemd/systemd-bootaa64.efi"}
	}
	return []string{"shimx64.efi", "grubx64.efi", "Microsoft/Boot/bootmgfw.efi", "systemd/systemd-bootx64.efi"}
}

// removableLoader makes sure that the EFI system partition has the loader that firmware starts without an entry of its own: the firmware's
// variables are left alone, so that the network stays first in its boot order.
func (in *installer) removableLoader(vols []volume) (err error) {
	esps := 0
	for _, v := range vols {
		if v.fs != "vfat" {
			continue
		}
		esps++
		at := in.mountAt + ".esp"
		if err := os.MkdirAll(at, 0o700); err != nil {
			return err
		}
		if err := unix.Mount(v.device, at, "vfat", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount %s (EFI system partition): %w", v.device, err)
		}
		ok, rerr := ensureLoader(at, in.rep.Logf)
		if uerr := unix.Unmount(at, 0); rerr == nil {
			rerr = uerr
		}
		if rerr != nil {
			return fmt.Errorf("EFI system partition %s: %w", v.device, rerr)
		}
		if ok {
			return nil
		}
	}
	if esps == 0 {
		return errors.New("the image's EFI system partition holds no FAT file system: UEFI firmware would find nothing to start")
	}
	return fmt.Errorf("the image's EFI system partition has neither EFI/BOOT/%s nor a boot loader that is known: this machine would find nothing to start", efiName())
}

// ensureLoader looks for the loader at the firmware's own path in a mounted EFI system partition, and copies the system's there when it is
// missing. It says whether there is one in the end.
func ensureLoader(dir string, logf func(string, ...any)) (bool, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer root.Close()
	want := fold(root, "EFI/BOOT/"+efiName())
	if fi, err := root.Stat(want); err == nil && fi.Mode().IsRegular() && fi.Size() > 0 {
		return true, nil
	}
	d, err := root.Open(fold(root, "EFI"))
	if err != nil {
		return false, nil
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return false, err
	}
	slices.Sort(names)
	for _, l := range loaders() {
		var from string
		if strings.Contains(l, "/") {
			from = fold(root, "EFI/"+l)
		} else {
			for _, n := range names {
				if p := fold(root, "EFI/"+n+"/"+l); from == "" {
					if fi, err := root.Stat(p); err == nil && fi.Mode().IsRegular() {
						from = p
					}
				}
			}
		}
		if fi, err := root.Stat(firstOf(from, "-")); err != nil || !fi.Mode().IsRegular() {
			continue
		}
		if err := root.MkdirAll(path.Dir(want), 0o755); err != nil {
			return false, err
		}
		if err := copyInRoot(root, from, want); err != nil {
			return false, err
		}
		if strings.HasPrefix(l, "shim") { // it starts the GRUB beside it
			grub := "grub" + strings.TrimPrefix(l, "shim")
			if p := fold(root, path.Dir(from)+"/"+grub); p != "" {
				if err := copyInRoot(root, p, path.Join(path.Dir(want), grub)); err != nil && !errors.Is(err, os.ErrNotExist) {
					return false, err
				}
			}
		}
		logf("the firmware's own loader path was empty: %s is now there as well", from)
		return true, nil
	}
	return false, nil
}

func copyInRoot(root *os.Root, from, to string) error {
	src, err := root.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := root.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Sync(), dst.Close())
}

// configureImage gives the system on the disk what it needs to be this machine: its seed, its network, and what the image itself wants done.
func (in *installer) configureImage(ctx context.Context, s imageSystem) error {
	defer in.closeVolumes(ctx)
	if err := in.seedImage(s); err != nil {
		return err
	}
	ran, err := in.imageHook(ctx, s, "curtin-hooks")
	if err != nil {
		return err
	}
	if s.kind == kindLinux && !ran { // an image's own hook has done this in its own way
		if err := in.network(); err != nil {
			return err
		}
	}
	if _, err = in.imageHook(ctx, s, "finalize"); err != nil {
		return err
	}
	return in.unmountAll()
}

// seedImage writes the plan's files.
func (in *installer) seedImage(s imageSystem) error {
	var files []outFile
	if s.kind == kindLinux {
		if h := in.plan.Hostname; h != "" {
			files = append(files, outFile{"/etc/hostname", h + "\n", 0o644})
			if hosts, ok := in.hosts(h); ok {
				files = append(files, hosts)
			}
		}
		if fi, err := in.root.Lstat("etc/machine-id"); err == nil && fi.Mode().IsRegular() {
			files = append(files, outFile{"/etc/machine-id", "", 0o444})
		}
	}
	for _, f := range in.plan.Seed {
		p := f.Path
		switch s.kind {
		case kindCore:
			if !strings.HasPrefix(p, "/etc/cloud/") {
				in.rep.Logf("%s has no place in Ubuntu Core", p)
				continue
			}
			p = "/" + s.prefix + p
		case kindWindows:
			p = "/" + fold(in.root, p)
		}
		files = append(files, outFile{p, f.Content, f.Mode})
	}
	for _, f := range files {
		if err := in.write(f); err != nil {
			return err
		}
	}
	in.rep.Logf("%d files were written into the image's system", len(files))
	return nil
}

// imageHook runs one of the programs that an image brings for its own installation. They are written for MAAS's environment, which has
// Python and curtin: where their interpreter is missing, what the agent does itself has to do, and that is said; a system of which the agent
// knows nothing fails.
func (in *installer) imageHook(ctx context.Context, s imageSystem, name string) (ran bool, err error) {
	if !s.curtin {
		return false, nil
	}
	p := fold(in.root, "curtin/"+name)
	fi, err := in.root.Stat(p)
	if err != nil || !fi.Mode().IsRegular() {
		return false, nil
	}
	b, err := readHead(in.root, p)
	if err != nil {
		return false, err
	}
	interpreter, words := shebang(b)
	missing := ""
	for _, w := range append([]string{interpreter}, words...) {
		if _, err := exec.LookPath(w); w != "" && err != nil {
			missing = w
			break
		}
	}
	if missing != "" {
		if s.kind == kindOther {
			return false, fmt.Errorf("the image prepares itself by /curtin/%s, which needs %s, and this environment has none: let machines boot the full environment (setting ingot_boot_environment=full) and deploy again", name, missing)
		}
		in.rep.Progress(stageCurthooks, fmt.Sprintf("The image's own /curtin/%s was not run: this environment has no %s. Network and cloud-init were configured without it.", name, missing))
		in.rep.Logf("/curtin/%s needs %s, which this environment does not have: it is not run", name, missing)
		return false, nil
	}
	work, err := os.MkdirTemp("", "ingot-hook.")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(work)
	env, err := in.hookEnv(work)
	if err != nil {
		return false, err
	}
	in.rep.Logf("running the image's own /curtin/%s", name)
	return true, inStep("curtin/"+name, in.runHook(ctx, filepath.Join(in.mountAt, p), work, env))
}

func readHead(root *os.Root, p string) ([]byte, error) {
	f, err := root.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 256)
	n, err := io.ReadFull(f, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return b[:n], err
}

// shebang names a script's interpreter, and the program that env is to find. A binary has none.
func shebang(b []byte) (interpreter string, more []string) {
	line, ok := strings.CutPrefix(string(b), "#!")
	if !ok {
		return "", nil
	}
	line, _, _ = strings.Cut(line, "\n")
	w := strings.Fields(line)
	if len(w) == 0 {
		return "", nil
	}
	if path.Base(w[0]) == "env" && len(w) > 1 {
		for _, x := range w[1:] {
			if !strings.HasPrefix(x, "-") && !strings.Contains(x, "=") {
				return w[0], []string{x}
			}
		}
	}
	return w[0], nil
}

// hookEnv writes the files that such a program reads, and names them in its environment.
func (in *installer) hookEnv(work string) ([]string, error) {
	cloud := map[string]any{}
	for _, f := range in.plan.Seed {
		cloud[strings.TrimSuffix(path.Base(f.Path), path.Ext(f.Path))] = map[string]any{"path": f.Path, "content": f.Content}
	}
	network := in.plan.Network
	if inner, ok := network["network"].(map[string]any); ok {
		network = inner
	}
	config, err := json.Marshal(map[string]any{"network": network, "cloudconfig": cloud, "storage": map[string]any{"version": 1, "config": []any{}}})
	if err != nil {
		return nil, err
	}
	state, err := json.Marshal(map[string]any{"network": network})
	if err != nil {
		return nil, err
	}
	for n, b := range map[string][]byte{"config": config, "network_state": state, "fstab": nil} { // JSON is YAML
		if err := os.WriteFile(filepath.Join(work, n), b, 0o600); err != nil {
			return nil, err
		}
	}
	return []string{"PATH=" + strings.Join(searchPath, ":"), "HOME=/root", "LC_ALL=C.UTF-8", "TARGET_MOUNT_POINT=" + in.mountAt, "OUTPUT_FSTAB=" + filepath.Join(work, "fstab"),
		"OUTPUT_NETWORK_CONFIG=" + filepath.Join(work, "network_state"), "OUTPUT_NETWORK_STATE=" + filepath.Join(work, "network_state"),
		"CONFIG=" + filepath.Join(work, "config"), "WORKING_DIR=" + work}, nil
}

func (in *installer) runHook(ctx context.Context, file, work string, env []string) error {
	c := exec.CommandContext(ctx, file)
	c.Dir, c.Env = work, env
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	var out tailBuffer
	pr, pw := io.Pipe()
	c.Stdout, c.Stderr = pw, pw
	done := make(chan struct{})
	go func() {
		defer close(done)
		sc := bufio.NewScanner(io.TeeReader(pr, &out))
		for sc.Scan() {
			if l := bytes.TrimSpace(sc.Bytes()); len(l) > 0 {
				in.rep.Line("  " + printable(string(l)))
			}
		}
		_, _ = io.Copy(io.Discard, pr)
	}()
	err := c.Run()
	pw.Close()
	<-done
	if err != nil {
		return &StepError{Command: path.Base(file), Output: out.lines(), Err: err}
	}
	return nil
}
