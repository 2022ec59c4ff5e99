package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
	"golang.org/x/sys/unix"
)

// Stage names, as MAAS's own installer reports them.
const (
	stageInstall   = "cmd-install"
	stagePartition = "cmd-install/stage-partitioning"
	stageExtract   = "cmd-install/stage-extract"
	stageNetwork   = "cmd-install/stage-network"
	stageCurthooks = "cmd-install/stage-curthooks"
	stageLate      = "cmd-install/stage-late"
)

// installer carries out one InstallPlan.
type installer struct {
	plan      api.InstallPlan
	configURL string
	client    *Client
	rep       *Reporter
	cmd       commander
	firmware  string // what this boot was: must be what the plan was made for
	mountAt   string // where the new system is assembled
	devPrefix string

	targets []target
	mounts  []string // what is mounted, innermost last
	root    *os.Root
}

// mounted is a partition with its place.
type mountPlan struct {
	part   api.PartitionPlan
	device string
	boot   bool
}

func (in *installer) log(s string) { in.rep.Line(s) }

// run performs all stages up to the point where the disk would boot. Whatever happens, nothing stays mounted.
func (in *installer) run(ctx context.Context, present []Disk) (err error) {
	stage := func(name, description string, f func() error) {
		if err != nil {
			return
		}
		in.rep.Start(name, description)
		err = inStep(strings.TrimPrefix(name, stageInstall+"/"), f())
		in.rep.Finish(name, description, err)
	}
	defer func() {
		if uerr := in.unmountAll(); uerr != nil && err == nil {
			err = inStep("unmount", uerr)
		}
	}()
	var mounts []mountPlan
	stage(stagePartition, "Configuring storage", func() error {
		if err := in.checkPlan(); err != nil {
			return err
		}
		if err := in.verify(present); err != nil {
			return err
		}
		if mounts, err = in.partition(ctx); err != nil {
			return err
		}
		return in.mount(mounts)
	})
	stage(stageExtract, "Installing OS", func() error { return in.extract(ctx) })
	stage(stageNetwork, "Configuring network", func() error { return in.network() })
	stage(stageCurthooks, "Configuring OS", func() error { return in.configure(ctx, mounts) })
	return err
}

var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,252}[a-zA-Z0-9])?$`)

// checkPlan refuses plans that make no sense before a disk is looked at.
func (in *installer) checkPlan() error {
	p := in.plan
	if p.Firmware != "bios" && p.Firmware != "uefi" {
		return fmt.Errorf("refused: the plan's firmware is %q", p.Firmware)
	}
	if p.Firmware != in.firmware {
		return fmt.Errorf("refused: the plan is for %s firmware, this machine booted by %s", p.Firmware, in.firmware)
	}
	roots, boots, esp := 0, 0, 0
	points := map[string]bool{}
	for _, d := range p.Disks {
		if d.Boot {
			boots++
		}
		for _, x := range d.Partitions {
			for _, v := range []string{x.FSUUID, x.Options, x.UUID} { // they stand in fstab and in command lines
				if strings.ContainsAny(v, " \t\r\n#") || strings.HasPrefix(v, "-") {
					return fmt.Errorf("refused: partition %d: %q", x.Number, v)
				}
			}
			if x.MountPoint == "" {
				continue
			}
			if x.MountPoint == "/" {
				roots++
			}
			if x.MountPoint == "/boot/efi" && x.FSType != "" {
				esp++
			}
			if x.FSType != "swap" && (path.Clean(x.MountPoint) != x.MountPoint || !path.IsAbs(x.MountPoint) || strings.ContainsAny(x.MountPoint, " \t\n\\#")) {
				return fmt.Errorf("refused: mount point %q", x.MountPoint)
			}
			if points[x.MountPoint] && x.FSType != "swap" {
				return fmt.Errorf("refused: two partitions for %s", x.MountPoint)
			}
			points[x.MountPoint] = true
		}
	}
	switch {
	case roots != 1:
		return fmt.Errorf("refused: the plan has %d root file systems", roots)
	case boots != 1:
		return fmt.Errorf("refused: the plan has %d boot disks", boots)
	case p.Firmware == "uefi" && esp != 1:
		return errors.New("refused: UEFI firmware needs an EFI system partition at /boot/efi")
	}
	if p.Hostname != "" && !hostName.MatchString(p.Hostname) {
		return fmt.Errorf("refused: host name %q", p.Hostname)
	}
	for _, f := range p.Seed {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return fmt.Errorf("refused: seed file %q", f.Path)
		}
	}
	if _, err := imageURL(in.configURL, p.Image); err != nil {
		return err
	}
	_, err := renderNetwork(firstOf(p.NetworkStyle, "networkd"), p.Network)
	return err
}

func (in *installer) verify(present []Disk) error {
	var ids []api.DiskID
	for _, d := range in.plan.Disks {
		ids = append(ids, d.Disk)
	}
	ts, err := verifyTargets(ids, present)
	if err != nil {
		return err
	}
	for i, d := range in.plan.Disks { // all layouts must fit before the first is written
		if _, err := layoutGPT(d.Partitions, ts[i].disk.Size); err != nil {
			return fmt.Errorf("refused: disk %s: %w", label(d.Disk), err)
		}
	}
	in.targets = ts
	return nil
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// partition writes the tables and the file systems.
func (in *installer) partition(ctx context.Context) ([]mountPlan, error) {
	var out []mountPlan
	for i, d := range in.plan.Disks {
		t := in.targets[i]
		parts, err := layoutGPT(d.Partitions, t.disk.Size)
		if err != nil {
			return nil, err
		}
		in.rep.Logf("%s (serial %q, %d MiB): %d partitions", t.disk.Path, t.disk.Serial, t.disk.Size/mib, len(parts))
		if err := writeLayout(ctx, t, parts); err != nil {
			return nil, fmt.Errorf("%s: %w", t.disk.Path, err)
		}
		for j, p := range d.Partitions {
			dev := t.partition(p.Number)
			if err := waitPartition(ctx, t, dev, parts[j]); err != nil {
				return nil, err
			}
			if p.FSType == "" {
				continue
			}
			if err := in.mkfs(ctx, dev, p); err != nil {
				return nil, err
			}
			out = append(out, mountPlan{p, dev, d.Boot})
		}
	}
	return out, nil
}

// writeLayout clears what the disk said about itself and writes the new table. Old signatures at the new partitions' ends would come
// back to life (LVM, RAID) and are cleared too.
func writeLayout(ctx context.Context, t target, parts []gptPart) error {
	f, err := t.open()
	if err != nil {
		return err
	}
	defer f.Close()
	spans := []Span{{0, mib}, {t.disk.Size - mib, mib}}
	for _, p := range parts {
		spans = append(spans, Span{p.start, min(mib, p.end-p.start)}, Span{max(p.start, p.end-mib), min(mib, p.end-p.start)})
	}
	for _, s := range mergeSpans(spans) {
		if err := zero(ctx, f, s, nil); err != nil {
			return err
		}
	}
	if err := writeGPT(f, t.disk.Size, t.disk.BlockSize, newUUID(), parts); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return rereadPartitions(f)
}

// waitPartition waits for a partition's device node and checks that it is the one just written, by place and size.
func waitPartition(ctx context.Context, t target, dev string, p gptPart) error {
	s := system{"/"}
	name := filepath.Base(dev)
	for i := 0; i < 100; i++ {
		if i == 20 {
			f, err := t.open()
			if err != nil {
				return err
			}
			err = addPartition(f, p)
			f.Close()
			if err != nil {
				return fmt.Errorf("tell the kernel of %s: %w", dev, err)
			}
		}
		if _, err := os.Stat(dev); err == nil && s.exists("sys/class/block", name, "partition") {
			start, size := s.readInt("sys/class/block", name, "start")*512, s.readInt("sys/class/block", name, "size")*512
			if start != p.start || size != p.end-p.start {
				return fmt.Errorf("%s is at %d+%d, expected %d+%d: not the partition that was written", dev, start, size, p.start, p.end-p.start)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s did not appear", dev)
}

// mkfs makes one file system. dev lies on a verified target: partition checked it.
func (in *installer) mkfs(ctx context.Context, dev string, p api.PartitionPlan) error {
	if strings.HasPrefix(p.Label, "-") || strings.HasPrefix(p.FSUUID, "-") {
		return fmt.Errorf("refused: label %q", p.Label)
	}
	var args []string
	opt := func(flag, v string) {
		if v != "" {
			args = append(args, flag, v)
		}
	}
	switch p.FSType {
	case "ext2", "ext3", "ext4":
		args = []string{"mkfs." + p.FSType, "-F", "-q", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"}
		if p.FSType == "ext2" {
			args = []string{"mkfs.ext2", "-F", "-q", "-E", "nodiscard,lazy_itable_init=1"}
		}
		opt("-U", p.FSUUID)
		opt("-L", clip(p.Label, 16))
	case "vfat", "fat32", "fat16":
		args = []string{"mkfs.vfat"}
		if p.FSType == "fat16" {
			opt("-F", "16")
		} else {
			opt("-F", "32")
		}
		opt("-i", strings.ReplaceAll(p.FSUUID, "-", ""))
		opt("-n", strings.ToUpper(clip(p.Label, 11)))
	case "xfs":
		args = []string{"mkfs.xfs", "-f", "-q"}
		if p.FSUUID != "" {
			opt("-m", "uuid="+p.FSUUID)
		}
		opt("-L", clip(p.Label, 12))
	case "btrfs":
		args = []string{"mkfs.btrfs", "-f", "-q"}
		opt("-U", p.FSUUID)
		opt("-L", p.Label)
	case "swap":
		args = []string{"mkswap"}
		opt("-U", p.FSUUID)
		opt("-L", clip(p.Label, 15))
	default:
		return fmt.Errorf("file system %q is not supported", p.FSType)
	}
	return in.cmd.run(ctx, args[0], append(args[1:], dev)...)
}

// mount assembles the new system, outermost first.
func (in *installer) mount(ms []mountPlan) error {
	sort.SliceStable(ms, func(i, j int) bool { return len(ms[i].part.MountPoint) < len(ms[j].part.MountPoint) })
	for _, m := range ms {
		if m.part.MountPoint == "" || m.part.FSType == "swap" {
			continue
		}
		at := filepath.Join(in.mountAt, m.part.MountPoint)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		fs := m.part.FSType
		if strings.HasPrefix(fs, "fat") {
			fs = "vfat"
		}
		if err := unix.Mount(m.device, at, fs, unix.MS_NOATIME, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.device, m.part.MountPoint, err)
		}
		in.mounts = append(in.mounts, at)
	}
	r, err := os.OpenRoot(in.mountAt)
	in.root = r
	return err
}

func (in *installer) unmountAll() error {
	if in.root != nil {
		in.root.Close()
		in.root = nil
	}
	unix.Sync()
	var errs []error
	for i := len(in.mounts) - 1; i >= 0; i-- {
		var err error
		for try := 0; try < 50; try++ {
			if err = unix.Unmount(in.mounts[i], 0); err != unix.EBUSY {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if err == unix.EBUSY {
			err = unix.Unmount(in.mounts[i], unix.MNT_DETACH)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", in.mounts[i], err))
		}
	}
	in.mounts = nil
	return errors.Join(errs...)
}

// extract fills the new root from the image, verified by its SHA-256.
func (in *installer) extract(ctx context.Context) error {
	img := in.plan.Image
	u, err := imageURL(in.configURL, img)
	if err != nil {
		return err
	}
	d, err := newDownload(ctx, in.client, u, img, in.rep.Logf)
	if err != nil {
		return err
	}
	defer d.Close()
	in.rep.Logf("fetching %s (%s, %d MiB)", u, img.Type, img.Size/mib)
	lastPct := int64(0)
	tell := func(int64) {
		if img.Size <= 0 {
			return
		}
		if pct := d.at.Load() * 100 / img.Size; pct >= lastPct+10 {
			lastPct = pct / 10 * 10
			in.rep.Progress(stageExtract, fmt.Sprintf("Installing OS: %d %%", lastPct))
			in.rep.Logf("image: %d %%", lastPct)
		}
	}
	switch img.Type {
	case "squashfs":
		return in.unsquash(ctx, d, tell)
	case "root-tgz", "root-txz", "root-tzst", "root-tbz", "root-tar", "tgz", "txz", "tbz":
		raw := newReadAhead(d)
		defer raw.Close()
		z, done, err := decompress(raw)
		if err != nil {
			return err
		}
		defer done()
		plain := newReadAhead(z)
		defer plain.Close()
		var st unix.Statfs_t
		if err := unix.Statfs(in.mountAt, &st); err != nil {
			return err
		}
		if err := extractTar(plain, in.root, int64(st.Blocks)*st.Bsize, tell); err != nil {
			return err
		}
		// what follows the archive's end belongs to the digest as well
		if _, err := io.Copy(io.Discard, plain); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, raw)
		return err
	}
	return fmt.Errorf("image type %q is not supported", img.Type)
}

// unsquash stores the image on the new disk (memory may be small), verifies it, and unpacks it from there.
func (in *installer) unsquash(ctx context.Context, d *download, tell func(int64)) error {
	const name = ".ingot-image.squashfs"
	f, err := in.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer in.root.Remove(name)
	buf := make([]byte, 1<<20)
	for {
		n, rerr := d.Read(buf)
		if _, err := f.Write(buf[:n]); err != nil {
			f.Close()
			return err
		}
		tell(0)
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			f.Close()
			return rerr
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return in.cmd.run(ctx, "unsquashfs", "-n", "-q", "-f", "-da", "64", "-fr", "64", "-d", in.mountAt, filepath.Join(in.mountAt, name))
}

// write puts one file into the new system, never through a link that leads out of it.
func (in *installer) write(f outFile) error {
	p := strings.TrimPrefix(path.Clean(f.path), "/")
	if err := in.root.MkdirAll(path.Dir(p), 0o755); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if err := in.root.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	h, err := in.root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	mode := f.mode & 0o7777
	if mode == 0 {
		mode = 0o644
	}
	_, err = h.WriteString(f.content)
	if err == nil {
		err = h.Chmod(os.FileMode(mode & 0o777))
	}
	if cerr := h.Close(); err == nil {
		err = cerr
	}
	return err
}

func (in *installer) has(p string) bool {
	_, err := in.root.Stat(p)
	return err == nil
}

// network writes the operating system's network configuration in the style that the image understands.
func (in *installer) network() error {
	style := in.plan.NetworkStyle
	if style == "" {
		style = networkStyle(in.has)
	}
	files, err := renderNetwork(style, in.plan.Network)
	if err != nil {
		return err
	}
	in.rep.Logf("network style: %s, %d files", style, len(files))
	if style == "networkd" && len(files) > 0 {
		if err := in.resolver(); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := in.write(f); err != nil {
			return err
		}
	}
	return nil
}

// resolver writes name servers where no resolver daemon would: networkd only passes them on to systemd-resolved.
func (in *installer) resolver() error {
	if in.has("lib/systemd/systemd-resolved") || in.has("usr/lib/systemd/systemd-resolved") {
		return nil
	}
	var b strings.Builder
	seen := map[string]bool{}
	plan := in.plan.Network
	if inner, ok := plan["network"].(map[string]any); ok {
		plan = inner
	}
	eths, _ := plan["ethernets"].(map[string]any)
	for _, e := range eths {
		m, _ := e.(map[string]any)
		ns, _ := m["nameservers"].(map[string]any)
		as, _ := ns["addresses"].([]any)
		for _, a := range as {
			if s, ok := a.(string); ok && !seen[s] {
				seen[s] = true
				fmt.Fprintf(&b, "nameserver %s\n", s)
			}
		}
	}
	if b.Len() == 0 {
		return nil
	}
	return in.write(outFile{"/etc/resolv.conf", b.String(), 0o644})
}

// fstab names file systems by UUID.
func fstab(ms []mountPlan) string {
	var b strings.Builder
	b.WriteString("# Written by ingot-agent at installation.\n")
	for _, m := range ms {
		p := m.part
		src := "UUID=" + p.FSUUID
		if p.FSUUID == "" {
			src = "PARTUUID=" + p.UUID
		}
		fs, opts, pass := p.FSType, firstOf(p.Options, "defaults"), 2
		switch {
		case p.FSType == "swap":
			fmt.Fprintf(&b, "%s none swap %s 0 0\n", src, firstOf(p.Options, "sw"))
			continue
		case p.MountPoint == "":
			continue
		case p.MountPoint == "/":
			pass = 1
		case strings.HasPrefix(fs, "fat") || fs == "vfat":
			fs, pass = "vfat", 1
			if p.Options == "" {
				opts = "umask=0077"
			}
		}
		if fs == "xfs" || fs == "btrfs" {
			pass = 0
		}
		fmt.Fprintf(&b, "%s %s %s %s 0 %d\n", src, p.MountPoint, fs, opts, pass)
	}
	return b.String()
}

// configure makes the unpacked image this machine's own system and makes it bootable.
func (in *installer) configure(ctx context.Context, ms []mountPlan) error {
	files := []outFile{{"/etc/fstab", fstab(ms), 0o644}}
	if h := in.plan.Hostname; h != "" {
		files = append(files, outFile{"/etc/hostname", h + "\n", 0o644})
		if hosts, ok := in.hosts(h); ok {
			files = append(files, hosts)
		}
	}
	if fi, err := in.root.Lstat("etc/machine-id"); err == nil && fi.Mode().IsRegular() {
		files = append(files, outFile{"/etc/machine-id", "", 0o444}) // every machine gets its own at its first boot
	}
	for _, s := range in.plan.Seed {
		files = append(files, outFile{s.Path, s.Content, s.Mode})
	}
	for _, f := range files {
		if err := in.write(f); err != nil {
			return err
		}
	}
	return in.bootloader(ctx, ms)
}

// hosts adds the machine's own name to the image's /etc/hosts, so that it resolves without a name server.
func (in *installer) hosts(name string) (outFile, bool) {
	b, err := in.root.ReadFile("etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return outFile{}, false
	}
	for _, l := range strings.Split(string(b), "\n") {
		for i, w := range strings.Fields(l) {
			if i > 0 && w == name {
				return outFile{}, false
			}
		}
	}
	text := string(b)
	if text == "" {
		text = "127.0.0.1 localhost\n::1 localhost\n"
	}
	return outFile{"/etc/hosts", strings.TrimRight(text, "\n") + "\n127.0.1.1 " + name + "\n", 0o644}, true
}

// bootloader installs GRUB in the new system's own root, on the plan's boot disk only.
func (in *installer) bootloader(ctx context.Context, ms []mountPlan) error {
	var disk target
	for i, d := range in.plan.Disks {
		if d.Boot {
			disk = in.targets[i]
		}
	}
	if !disk.verified {
		return errors.New("refused: no boot disk was verified")
	}
	for _, b := range []struct {
		src, fs string
	}{{"/dev", ""}, {"/proc", "proc"}, {"/sys", "sysfs"}} {
		at := filepath.Join(in.mountAt, b.src)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		var err error
		if b.fs == "" {
			err = unix.Mount(b.src, at, "", unix.MS_BIND, "")
		} else {
			err = unix.Mount(b.fs, at, b.fs, 0, "")
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", at, err)
		}
		in.mounts = append(in.mounts, at)
	}
	install := "grub-install"
	dir := "boot/grub"
	if find(in.mountAt, install) == "" && find(in.mountAt, "grub2-install") != "" {
		install, dir = "grub2-install", "boot/grub2"
	}
	if find(in.mountAt, install) == "" {
		return errors.New("the image has no grub-install")
	}
	var err error
	if in.plan.Firmware == "uefi" {
		arch := "x86_64-efi"
		if DebianArch() == "arm64" {
			arch = "arm64-efi"
		}
		// The firmware's variables are left alone, so that the network stays first in its boot order; the loader is also put where
		// firmware looks by itself and where the network GRUB chains to.
		args := []string{"--target=" + arch, "--efi-directory=/boot/efi", "--no-nvram", "--recheck", "--bootloader-id=" + in.distributor()}
		if err = in.cmd.runIn(ctx, in.mountAt, nil, install, append(args, "--force-extra-removable")...); err != nil {
			in.rep.Logf("%s without Debian's --force-extra-removable: %v", install, err)
			err = in.cmd.runIn(ctx, in.mountAt, nil, install, append(args, "--removable")...)
		}
	} else {
		err = in.cmd.runIn(ctx, in.mountAt, nil, install, "--target=i386-pc", "--recheck", disk.disk.Path)
	}
	if err != nil {
		return err
	}
	return in.grubConfig(ctx, ms, dir)
}

// distributor is the directory of the EFI system partition that the image's own signed GRUB looks into: the distribution's name.
func (in *installer) distributor() string {
	b, _ := in.root.ReadFile("etc/os-release")
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, "ID="); ok {
			if v = strings.ToLower(strings.Trim(v, `"' `)); hostName.MatchString(v) {
				return v
			}
		}
	}
	return "grub"
}

// grubConfig writes a ready grub.cfg (running update-grub costs 10 s and more on slow machines); without a kernel that it knows,
// the image's own tool decides.
func (in *installer) grubConfig(ctx context.Context, ms []mountPlan, dir string) error {
	if in.has("etc/default") {
		p := "/etc/default/grub.d/50-ingot.cfg"
		if err := in.write(outFile{p, grubDefaults(in.plan.KernelOpts), 0o644}); err != nil {
			return err
		}
	}
	var rootUUID, bootUUID string
	prefix := "/boot"
	for _, m := range ms {
		switch m.part.MountPoint {
		case "/":
			rootUUID = m.part.FSUUID
		case "/boot":
			bootUUID, prefix = m.part.FSUUID, ""
		}
	}
	if bootUUID == "" {
		bootUUID = rootUUID
	}
	if ks := kernels(rootFS(in.root, "boot")); len(ks) > 0 && ks[0].initrd != "" && rootUUID != "" {
		return in.write(outFile{"/" + dir + "/grub.cfg", grubConfig(ks, rootUUID, bootUUID, prefix, in.plan.KernelOpts), 0o600})
	}
	for _, c := range [][]string{{"update-grub"}, {"grub2-mkconfig", "-o", "/" + dir + "/grub.cfg"}, {"grub-mkconfig", "-o", "/" + dir + "/grub.cfg"}} {
		if find(in.mountAt, c[0]) != "" {
			return in.cmd.runIn(ctx, in.mountAt, nil, c[0], c[1:]...)
		}
	}
	return errors.New("the image has no kernel in /boot")
}
