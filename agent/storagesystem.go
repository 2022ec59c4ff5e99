package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"golang.org/x/sys/unix"
)

// osFamily is a group of distributions that are put in order the same way.
type osFamily string

const (
	debianFamily osFamily = "debian"
	redhatFamily osFamily = "redhat"
	suseFamily   osFamily = "suse"
	otherFamily  osFamily = ""
)

// osRelease reads what the new system says it is.
func (in *installer) osRelease() map[string]string {
	m := map[string]string{}
	for _, p := range []string{"etc/os-release", "usr/lib/os-release"} {
		b, err := in.root.ReadFile(p)
		if err != nil {
			continue
		}
		for _, l := range strings.Split(string(b), "\n") {
			if k, v, ok := strings.Cut(l, "="); ok {
				m[k] = strings.Trim(strings.TrimSpace(v), `"'`)
			}
		}
		break
	}
	return m
}

func (in *installer) family() osFamily {
	r := in.osRelease()
	for _, w := range append([]string{r["ID"]}, strings.Fields(r["ID_LIKE"])...) {
		switch strings.ToLower(w) {
		case "debian", "ubuntu":
			return debianFamily
		case "rhel", "fedora", "centos", "rocky", "almalinux", "ol":
			return redhatFamily
		case "suse", "sles", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "sled":
			return suseFamily
		}
	}
	return otherFamily
}

// program says whether the new system has a program.
func (in *installer) program(name string) bool { return find(in.mountAt, name) != "" }

// efiArch are the names of this architecture: GRUB's target, the suffix of its loaders, of the removable one, of RPM packages.
func efiArch() (target, suffix, removable string) {
	if DebianArch() == "arm64" {
		return "arm64-efi", "aa64", "BOOTAA64.EFI"
	}
	return "x86_64-efi", "x64", "BOOTX64.EFI"
}

// missing are the packages that the model needs and the image lacks.
func (in *installer) missing(f osFamily) []string {
	var out []string
	need := func(present bool, pkg ...string) {
		if !present {
			out = append(out, pkg...)
		}
	}
	p := in.storage
	pick := func(debian, redhat, suse string) string {
		return map[osFamily]string{debianFamily: debian, redhatFamily: redhat, suseFamily: suse}[f]
	}
	if p.has(api.StorageRAID) {
		need(in.program("mdadm"), "mdadm")
	}
	if p.has(api.StorageVG) {
		need(in.program("lvm"), "lvm2")
	}
	if p.has(api.StorageBcache) {
		need(in.program("bcache-super-show"), "bcache-tools")
	}
	if p.hasFS("xfs") {
		need(in.program("xfs_repair"), "xfsprogs")
	}
	if p.hasFS("btrfs") {
		need(in.program("btrfs"), pick("btrfs-progs", "btrfs-progs", "btrfsprogs"))
	}
	kernel := len(kernels(rootFS(in.root, "boot"))) > 0
	usual := pick("linux-image-"+DebianArch(), "kernel", "kernel-default")
	if in.osRelease()["ID"] == "ubuntu" {
		usual = "linux-generic"
	}
	need(kernel, firstOf(in.plan.KernelPackage, usual))
	target, suffix, _ := efiArch()
	arch := DebianArch()
	grub := in.program("grub-install") || in.program("grub2-install")
	modules := func(t string) bool {
		return in.has("usr/lib/grub/"+t+"/normal.mod") || in.has("usr/share/grub2/"+t+"/normal.mod")
	}
	if in.plan.Firmware == "bios" {
		need(grub && modules("i386-pc"), map[osFamily][]string{debianFamily: {"grub-pc"}, redhatFamily: {"grub2-pc", "grub2-tools"}, suseFamily: {"grub2", "grub2-i386-pc"}}[f]...)
		return out
	}
	switch f {
	case debianFamily:
		need(grub && modules(target), "grub-efi-"+arch)
		need(in.has("usr/lib/grub/"+target+"-signed/grub"+suffix+".efi.signed"), "grub-efi-"+arch+"-signed")
		need(in.has("usr/lib/shim/shim"+suffix+".efi.signed") || in.has("usr/lib/shim/shim"+suffix+".efi.signed.latest"), "shim-signed")
		need(in.program("efibootmgr"), "efibootmgr")
	case redhatFamily:
		need(in.redhatLoader() != "", "grub2-efi-"+suffix, "shim-"+suffix)
		need(in.program("grub2-mkconfig"), "grub2-tools")
		need(in.program("efibootmgr"), "efibootmgr")
	case suseFamily:
		need(in.has("usr/share/efi/x86_64/grub.efi") || in.has("usr/lib64/efi/grub.efi") || in.has("usr/share/efi/aarch64/grub.efi") || modules(target), "grub2-"+target)
		need(in.has("usr/share/efi/x86_64/shim.efi") || in.has("usr/lib64/efi/shim.efi") || in.has("usr/share/efi/aarch64/shim.efi"), "shim")
	}
	return out
}

// enterChroot makes the new system a place where its own programs can run.
func (in *installer) enterChroot() error {
	type m struct {
		src, at, fs string
		flags       uintptr
	}
	ms := []m{{"/dev", "dev", "", unix.MS_BIND}, {"proc", "proc", "proc", 0}, {"sysfs", "sys", "sysfs", 0}, {"tmpfs", "run", "tmpfs", 0}}
	if _, err := os.Stat("/dev/pts/ptmx"); err == nil {
		ms = append(ms, m{"/dev/pts", "dev/pts", "", unix.MS_BIND})
	}
	if in.firmware == "uefi" {
		ms = append(ms, m{"efivarfs", "sys/firmware/efi/efivars", "efivarfs", 0})
	}
	if _, err := os.Stat("/run/udev/control"); err == nil { // programs ask udev what it knows
		ms = append(ms, m{"/run/udev", "run/udev", "", unix.MS_BIND})
	}
	for _, x := range ms {
		at := filepath.Join(in.mountAt, x.at)
		if err := os.MkdirAll(at, 0o755); err != nil && x.fs != "efivarfs" {
			return err
		}
		if err := unix.Mount(x.src, at, x.fs, x.flags, ""); err != nil {
			if x.fs == "efivarfs" { // a firmware without variables boots all the same
				in.rep.Logf("mount %s: %v", at, err)
				continue
			}
			return fmt.Errorf("mount %s: %w", at, err)
		}
		in.mounts = append(in.mounts, at)
	}
	return os.MkdirAll(filepath.Join(in.mountAt, "run/lock"), 0o755)
}

// borrow replaces a file of the new system for as long as packages are installed. The function that it returns puts the old one back.
func (in *installer) borrow(f outFile) (restore func() error, err error) {
	name := strings.TrimPrefix(f.path, "/")
	aside := path.Join(path.Dir(name), ".ingot-"+path.Base(name))
	if err := in.root.Rename(name, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := in.write(f); err != nil {
		return nil, err
	}
	return func() error {
		if err := in.root.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := in.root.Rename(aside, name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}, nil
}

// nameServers gives the new system a resolver while packages are installed, when it has none that works without its services.
func (in *installer) nameServers() (restore func() error, err error) {
	none := func() error { return nil }
	ours, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return none, nil
	}
	if b, err := in.root.ReadFile("etc/resolv.conf"); err == nil && strings.Contains(string(b), "nameserver") {
		return none, nil
	}
	return in.borrow(outFile{"/etc/resolv.conf", string(ours), 0o644})
}

// installPackages lets the new system's own package manager fetch what is missing. Services do not start, and the initramfs is not
// built for every package: rebuild does that once.
func (in *installer) installPackages(ctx context.Context, f osFamily, pkgs []string) (err error) {
	in.rep.Logf("the image lacks %s", strings.Join(pkgs, ", "))
	restores := []func() error{}
	defer func() {
		for _, r := range slices.Backward(restores) {
			if rerr := r(); rerr != nil && err == nil {
				err = rerr
			}
		}
	}()
	r, err := in.nameServers()
	if err != nil {
		return err
	}
	restores = append(restores, r)
	cmd := in.cmd
	if p := in.plan.Proxy; p != "" {
		cmd = cmd.with("http_proxy="+p, "https_proxy="+p)
	}
	var commands [][]string
	switch f {
	case debianFamily:
		if r, err = in.borrow(outFile{"/usr/sbin/policy-rc.d", "#!/bin/sh\n# no service starts while ingot-agent installs\nexit 101\n", 0o755}); err != nil {
			return err
		}
		restores = append(restores, r)
		if r, err = in.divertInitramfs(ctx); err != nil {
			return err
		}
		restores = append(restores, r)
		if err := in.debconf(ctx); err != nil {
			return err
		}
		net := []string{"-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20"}
		commands = [][]string{append([]string{"apt-get", "-q", "-o", "APT::Update::Error-Mode=any"}, append(slices.Clone(net), "update")...),
			append(append([]string{"apt-get", "-q", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"}, net...), append([]string{"install"}, pkgs...)...)}
	case redhatFamily:
		tool := "dnf"
		if !in.program(tool) {
			tool = "yum"
		}
		args := []string{tool, "-y", "--setopt=install_weak_deps=False"}
		if in.plan.Proxy != "" {
			args = append(args, "--setopt=proxy="+in.plan.Proxy)
		}
		commands = [][]string{append(append(slices.Clone(args), "install"), pkgs...)}
	case suseFamily:
		commands = [][]string{append([]string{"zypper", "--non-interactive", "install", "--no-recommends"}, pkgs...)}
	default:
		return fmt.Errorf("the image lacks %s, and the agent does not know how packages are installed on %q", strings.Join(pkgs, ", "), in.osRelease()["ID"])
	}
	for _, c := range commands {
		if err := cmd.runIn(ctx, in.mountAt, nil, c[0], c[1:]...); err != nil {
			in.rep.Logf("the image lacks %s, and they could not be installed: its package archive cannot be reached (proxy: %q), or does not have them. Give the machine's network a way to the archive, set a proxy or a mirror, or use an image that has them",
				strings.Join(pkgs, ", "), in.plan.Proxy)
			return fmt.Errorf("packages that the image lacks (%s) could not be installed from its own archive: %w", strings.Join(pkgs, ", "), err)
		}
	}
	return nil
}

// divertInitramfs puts a program that does nothing in the place of update-initramfs.
func (in *installer) divertInitramfs(ctx context.Context) (restore func() error, err error) {
	const tool, real = "/usr/sbin/update-initramfs", "/usr/sbin/update-initramfs.ingot"
	if !in.program("dpkg-divert") {
		return func() error { return nil }, nil
	}
	if err := in.cmd.runIn(ctx, in.mountAt, nil, "dpkg-divert", "--quiet", "--local", "--add", "--rename", "--divert", real, tool); err != nil {
		return nil, err
	}
	if err := in.write(outFile{tool, "#!/bin/sh\n# ingot-agent builds the initramfs once, at the end\nexit 0\n", 0o755}); err != nil {
		return nil, err
	}
	return func() error {
		if err := in.root.Remove(strings.TrimPrefix(tool, "/")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return in.cmd.runIn(context.WithoutCancel(ctx), in.mountAt, nil, "dpkg-divert", "--quiet", "--local", "--remove", "--rename", "--divert", real, tool)
	}, nil
}

// debconf answers what GRUB's packages would ask: upgrades install it on the same disks, and leave the firmware's boot order alone.
func (in *installer) debconf(ctx context.Context) error {
	if !in.program("debconf-set-selections") {
		return nil
	}
	var disks, esps []string
	for _, d := range in.storage.bootDisks() {
		t := in.targetOf[d.ID]
		name := t.disk.Path
		if t.disk.ByID != "" {
			name = "/dev/disk/by-id/" + t.disk.ByID
		}
		disks = append(disks, name)
		for _, x := range in.storage.parts[d.ID] {
			if in.storage.purpose(x) != "esp" {
				continue
			}
			if t.disk.ByID != "" {
				esps = append(esps, fmt.Sprintf("%s-part%d", name, x.Number))
			} else {
				esps = append(esps, in.devices[x.ID].path)
			}
		}
	}
	text := "grub2 grub2/update_nvram boolean false\n"
	if in.plan.Firmware == "bios" {
		text += "grub-pc grub-pc/install_devices multiselect " + strings.Join(disks, ", ") + "\ngrub-pc grub-pc/install_devices_empty boolean false\n"
	} else {
		text += "grub-efi grub-efi/install_devices multiselect " + strings.Join(esps, ", ") + "\n"
	}
	return in.cmd.runIn(ctx, in.mountAt, strings.NewReader(text), "debconf-set-selections")
}

// byIDLinks gives disks the names that udev would give them, where there is no udev: GRUB's packages go by them.
func (in *installer) byIDLinks() error {
	if _, err := os.Stat("/run/udev/control"); err == nil || in.devDir == "" {
		return nil
	}
	dir := filepath.Join(in.devDir, "disk/by-id")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	link := func(name, kernel string) {
		_ = os.Remove(filepath.Join(dir, name))
		if err := os.Symlink("../../"+kernel, filepath.Join(dir, name)); err != nil {
			in.rep.Logf("%v", err)
		}
	}
	for _, d := range in.storage.disks() {
		t := in.targetOf[d.ID]
		if id := t.disk.ByID; id != "" && filepath.Base(id) == id {
			link(id, t.disk.Name)
			for _, x := range in.storage.parts[d.ID] {
				link(fmt.Sprintf("%s-part%d", id, x.Number), partitionName(t.disk.Name, x.Number))
			}
		}
	}
	return nil
}

// rebuild builds the initramfs of every kernel, once, when all configuration is in place.
func (in *installer) rebuild(ctx context.Context) error {
	switch {
	case in.program("update-initramfs"):
		mode := "-u"
		if ks := kernels(rootFS(in.root, "boot")); len(ks) > 0 && ks[0].initrd == "" {
			mode = "-c"
		}
		return in.cmd.runIn(ctx, in.mountAt, nil, "update-initramfs", mode, "-k", "all")
	case in.program("dracut"): // for any hardware: the environment that installs is not what will run
		return in.cmd.runIn(ctx, in.mountAt, nil, "dracut", "--force", "--no-hostonly", "--regenerate-all")
	}
	return errors.New("the image has neither update-initramfs nor dracut, so its initramfs cannot be made to find the root; use a layout of plain partitions with ext4, or another image")
}

// storageConfig writes what the new system's storage tools read.
func (in *installer) storageConfig(ctx context.Context, f osFamily) error {
	if in.storage.has(api.StorageRAID) {
		name := "/etc/mdadm.conf"
		if f == debianFamily {
			name = "/etc/mdadm/mdadm.conf"
		}
		if err := in.write(outFile{name, in.storage.mdadmConf(), 0o644}); err != nil {
			return err
		}
	}
	if in.has("etc/udev") || in.has("lib/udev") || in.has("usr/lib/udev") {
		if err := in.write(outFile{namesFile, in.storage.deviceNames(in.ids, in.tables), 0o644}); err != nil {
			return err
		}
	}
	// a list of LVM's devices, made where the image was built, would hide this machine's
	if err := in.root.Remove("etc/lvm/devices/system.devices"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if n := in.plan.SwapSize; n != nil && *n > 0 {
		if err := in.makeSwapFile(*n); err != nil {
			return err
		}
		return in.cmd.run(ctx, "mkswap", filepath.Join(in.mountAt, swapFile))
	}
	return nil
}

// relabel asks a system with SELinux to label its files at its first boot: the agent that wrote them knows no labels.
func (in *installer) relabel() error {
	b, err := in.root.ReadFile("etc/selinux/config")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, l := range strings.Split(string(b), "\n") {
		if k, v, ok := strings.Cut(strings.TrimSpace(l), "="); ok && k == "SELINUX" && strings.TrimSpace(v) == "disabled" {
			return nil
		}
	}
	return in.write(outFile{"/.autorelabel", "", 0o644})
}
