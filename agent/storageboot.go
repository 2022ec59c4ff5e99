package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// rootSpec is the root= of the kernel's command line. A logical volume goes by its name, which tells initramfs tools to activate it.
func (in *installer) rootSpec() string {
	f := in.storage.byID[in.storage.mounts["/"].Device]
	if v := in.storage.byID[f.Volume]; v.Type == api.StorageLV {
		return mapperNode(in.storage.byID[v.VolGroup].Name, v.Name)
	}
	return "UUID=" + fsUUID(f)
}

// bootPlace is the file system that holds /boot, and the path of /boot in it.
func (in *installer) bootPlace() (f *api.StorageItem, prefix string) {
	if m := in.storage.mounts["/boot"]; m != nil && m.Device != "" {
		return in.storage.byID[m.Device], ""
	}
	return in.storage.byID[in.storage.mounts["/"].Device], "/boot"
}

// grubModules are what GRUB needs to read /boot.
func (in *installer) grubModules() []string {
	f, _ := in.bootPlace()
	mods := []string{"part_gpt", "part_msdos"}
	if in.storage.under(f.Volume, api.StorageRAID) {
		mods = append(mods, "diskfilter", "mdraid1x")
		for _, it := range in.storage.items {
			if it.Type == api.StorageRAID && (it.Level == "5" || it.Level == "6") && !slices.Contains(mods, "raid"+it.Level+"rec") {
				mods = append(mods, "raid"+it.Level+"rec")
			}
		}
	}
	if in.storage.under(f.Volume, api.StorageVG) {
		mods = append(mods, "lvm")
	}
	switch f.FSType {
	case "xfs", "btrfs":
		mods = append(mods, f.FSType)
	default:
		mods = append(mods, "ext2")
	}
	return append(mods, "gzio")
}

// kernelOpts are the command line of the new system's kernel, without its root.
func (in *installer) kernelOpts(f osFamily) string {
	opts := strings.Join(strings.Fields(in.plan.KernelOpts), " ")
	if f != debianFamily && (in.storage.has(api.StorageRAID) || in.storage.has(api.StorageVG)) && in.program("dracut") {
		opts = strings.TrimSpace("rd.auto=1 " + opts)
	}
	return opts
}

// bootloader installs GRUB on every boot disk of the plan, with the new system's own programs.
func (in *installer) bootloader(ctx context.Context, f osFamily) error {
	install, dir := "grub-install", "boot/grub"
	if !in.program(install) && in.program("grub2-install") || f == redhatFamily || f == suseFamily {
		install, dir = "grub2-install", "boot/grub2"
	}
	opts := in.kernelOpts(f)
	if err := in.grubSettings(f, opts); err != nil {
		return err
	}
	if in.plan.Firmware == "bios" {
		if !in.program(install) {
			return fmt.Errorf("the image has no %s", install)
		}
		for _, d := range in.storage.bootDisks() {
			if err := in.cmd.runIn(ctx, in.mountAt, nil, install, "--target=i386-pc", "--recheck", in.targetOf[d.ID].disk.Path); err != nil {
				return err
			}
		}
	} else if err := in.efiLoader(ctx, f, install, dir); err != nil {
		return err
	}
	if err := in.grubMenu(ctx, f, dir, opts); err != nil {
		return err
	}
	if in.plan.Firmware == "bios" {
		return nil
	}
	if err := in.copyESP(); err != nil {
		return err
	}
	in.nvram(ctx)
	return nil
}

// grubSettings writes what the new system's own GRUB tools go by at the next upgrade.
func (in *installer) grubSettings(f osFamily, opts string) error {
	if f == debianFamily || f == otherFamily {
		if !in.has("etc/default") {
			return nil
		}
		// the setting of cloud images for consoles of clouds
		const cloud = "etc/default/grub.d/50-cloudimg-settings.cfg"
		if in.has(cloud) {
			if err := in.root.Rename(cloud, cloud+".disabled"); err != nil {
				return err
			}
		}
		return in.write(outFile{"/etc/default/grub.d/50-ingot.cfg", grubDefaults(opts), 0o644})
	}
	b, err := in.root.ReadFile("etc/default/grub")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var keep []string
	for _, l := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
		k, _, _ := strings.Cut(strings.TrimSpace(l), "=")
		switch k {
		case "GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_TIMEOUT", "GRUB_DISABLE_OS_PROBER", "GRUB_TERMINAL", "GRUB_SERIAL_COMMAND":
		default:
			keep = append(keep, l)
		}
	}
	text := strings.TrimLeft(strings.Join(keep, "\n")+"\n", "\n") + strings.Replace(grubDefaults(opts), "GRUB_CMDLINE_LINUX_DEFAULT=", "GRUB_CMDLINE_LINUX=", 1)
	return in.write(outFile{"/etc/default/grub", text, 0o644})
}

// grubMenu writes the menu. For a Debian kind of system it is written ready (update-grub costs 10 s and more on slow machines) when
// there is a kernel with its initramfs; else the system's own tool decides.
func (in *installer) grubMenu(ctx context.Context, f osFamily, dir, opts string) error {
	bootFS, prefix := in.bootPlace()
	ks := kernels(rootFS(in.root, "boot"))
	if f == debianFamily || f == otherFamily {
		if len(ks) > 0 && ks[0].initrd != "" {
			return in.write(outFile{"/" + dir + "/grub.cfg", grubConfig(ks, in.rootSpec(), fsUUID(bootFS), prefix, opts, in.grubModules()), 0o600})
		}
	} else if err := in.loaderEntries(ks, prefix, opts); err != nil {
		return err
	}
	for _, c := range [][]string{{"update-grub"}, {"grub2-mkconfig", "-o", "/" + dir + "/grub.cfg"}, {"grub-mkconfig", "-o", "/" + dir + "/grub.cfg"}} {
		if in.program(c[0]) {
			return in.cmd.runIn(ctx, in.mountAt, nil, c[0], c[1:]...)
		}
	}
	return errors.New("the image has no kernel in /boot and no tool that writes GRUB's menu")
}

// loaderEntries makes the entries of the boot loader specification, which hold each kernel's command line on Red Hat's kin, name this
// machine's root.
func (in *installer) loaderEntries(ks []kernelPair, prefix, opts string) error {
	line := strings.TrimSpace("root=" + in.rootSpec() + " ro " + opts)
	settings, _ := in.root.ReadFile("etc/default/grub")
	const dir = "boot/loader/entries"
	ents, _ := fs.ReadDir(in.root.FS(), dir)
	if len(ents) == 0 && !strings.Contains(string(settings), "GRUB_ENABLE_BLSCFG=true") {
		return nil
	}
	if err := in.write(outFile{"/etc/kernel/cmdline", line + "\n", 0o644}); err != nil {
		return err
	}
	found := false
	for _, e := range ents {
		if !strings.HasSuffix(e.Name(), ".conf") {
			continue
		}
		b, err := in.root.ReadFile(path.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		found = true
		if err := in.write(outFile{"/" + path.Join(dir, e.Name()), loaderEntry(string(b), prefix, line), 0o644}); err != nil {
			return err
		}
	}
	if found {
		return nil
	}
	name := firstOf(in.osRelease()["PRETTY_NAME"], "Linux")
	for _, k := range ks {
		text := fmt.Sprintf("title %s (%s)\nversion %s\nlinux %s/%s\n", printable(name), k.version, k.version, prefix, k.kernel)
		if k.initrd != "" {
			text += "initrd " + prefix + "/" + k.initrd + "\n"
		}
		text += "options " + line + "\n"
		if err := in.write(outFile{"/" + path.Join(dir, "ingot-"+k.version+".conf"), text, 0o644}); err != nil {
			return err
		}
	}
	return nil
}

// loaderEntry gives an entry another command line and the place of /boot.
func loaderEntry(text, prefix, line string) string {
	var out []string
	for _, l := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		w := strings.Fields(l)
		switch {
		case len(w) > 0 && w[0] == "options":
			continue
		case len(w) > 1 && (w[0] == "linux" || w[0] == "initrd"):
			l = w[0] + " " + prefix + "/" + path.Base(w[1])
			if len(w) > 2 { // $tuned_initrd
				l += " " + strings.Join(w[2:], " ")
			}
		}
		out = append(out, l)
	}
	return strings.Join(append(out, "options "+line), "\n") + "\n"
}

// distributor is the directory of the EFI system partition that the image's own signed GRUB looks into: the distribution's name.
func (in *installer) distributor() string {
	if v := strings.ToLower(in.osRelease()["ID"]); hostName.MatchString(v) {
		return v
	}
	return "grub"
}
