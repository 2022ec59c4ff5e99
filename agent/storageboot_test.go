package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
)

// imageRoot is an installer with a system in a directory: files by path, programs among them.
func imageRoot(t *testing.T, firmware, plan string, files map[string]string) (*installer, *[]string) {
	t.Helper()
	dir := t.TempDir()
	for p, c := range files {
		p = filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(c), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	var l items
	plans[plan](&l)
	m, _ := newMaker(t, l)
	m.host.(*fakeHost).free["vgroot"] = 8*gib - 16*mib
	if err := m.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	said := &[]string{}
	rep := NewReporter(testLog{t})
	in := &installer{plan: api.InstallPlan{Firmware: firmware, KernelOpts: "console=ttyS0"}, rep: rep, firmware: firmware, mountAt: dir, root: root,
		storage: m.plan, targetOf: m.targets, devices: m.devices, tables: m.tables, list: func() ([]Disk, error) { return nil, nil }}
	in.cmd = commander{fake: func(root, stdin string, argv []string) (string, error) {
		line := strings.Join(argv, " ")
		if root == "" {
			line = "(outside) " + line
		}
		if stdin != "" {
			line += "\n  < " + strings.ReplaceAll(strings.TrimSpace(stdin), "\n", "\n  < ")
		}
		*said = append(*said, line)
		return "", nil
	}}
	return in, said
}

func osFiles(id, like string, more ...string) map[string]string {
	m := map[string]string{"etc/os-release": "ID=" + id + "\nID_LIKE=\"" + like + "\"\nPRETTY_NAME=\"The system\"\n"}
	for _, p := range more {
		m[p] = "x"
	}
	return m
}

func TestMissingPackages(t *testing.T) {
	for _, c := range []struct {
		name, firmware, plan string
		files                map[string]string
		kernel               string
		want                 string
	}{
		{"debian with all", "bios", "bios-lvm", osFiles("debian", "", "usr/sbin/lvm", "usr/sbin/grub-install", "usr/lib/grub/i386-pc/normal.mod", "boot/vmlinuz-6.1", "boot/initrd.img-6.1"), "", ""},
		{"bare debian", "uefi", "uefi-raid1-lvm", osFiles("debian", ""), "", "mdadm lvm2 xfsprogs linux-image-amd64 grub-efi-amd64 grub-efi-amd64-signed shim-signed efibootmgr"},
		{"ubuntu squashfs", "bios", "bios-lvm", osFiles("ubuntu", "debian", "usr/sbin/lvm"), "", "linux-generic grub-pc"},
		{"ubuntu with its kernel chosen", "bios", "bios-lvm", osFiles("ubuntu", "debian", "usr/sbin/lvm"), "linux-generic-hwe-24.04", "linux-generic-hwe-24.04 grub-pc"},
		{"rocky", "uefi", "uefi-raid1-lvm", osFiles("rocky", "rhel centos fedora", "usr/sbin/lvm", "boot/vmlinuz-5.14"), "", "mdadm xfsprogs grub2-efi-x64 shim-x64 grub2-tools efibootmgr"},
		{"centos on a BIOS", "bios", "bios-mbr-two-disks", osFiles("centos", "rhel fedora", "usr/sbin/grub2-install", "boot/vmlinuz-5.14"), "", "btrfs-progs grub2-pc grub2-tools"},
		{"sles", "uefi", "uefi-raid1-lvm", osFiles("sles", "suse", "usr/sbin/mdadm", "usr/sbin/lvm", "usr/sbin/xfs_repair", "usr/share/efi/x86_64/grub.efi"), "", "kernel-default shim"},
		{"bcache", "bios", "bcache-shared", osFiles("debian", "", "usr/sbin/xfs_repair", "usr/sbin/grub-install", "usr/lib/grub/i386-pc/normal.mod", "boot/vmlinuz-6.1"), "", "bcache-tools"},
	} {
		if DebianArch() != "amd64" {
			t.Skip("the names are those of amd64")
		}
		t.Run(c.name, func(t *testing.T) {
			in, _ := imageRoot(t, c.firmware, c.plan, c.files)
			in.plan.KernelPackage = c.kernel
			if got := strings.Join(in.missing(in.family()), " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestInstallPackages: which commands run in the new system, and that it is left as it was.
func TestInstallPackages(t *testing.T) {
	in, said := imageRoot(t, "bios", "bios-lvm", osFiles("ubuntu", "debian", "usr/bin/apt-get", "usr/bin/dpkg-divert", "usr/sbin/update-initramfs", "usr/bin/debconf-set-selections"))
	in.plan.Proxy = "http://10.0.0.1:8000/"
	if err := in.write(outFile{"/usr/sbin/policy-rc.d", "theirs", 0o755}); err != nil {
		t.Fatal(err)
	}
	if err := in.installPackages(t.Context(), in.family(), []string{"lvm2", "grub-pc"}); err != nil {
		t.Fatal(err)
	}
	golden(t, "packages-ubuntu.txt", strings.Join(*said, "\n")+"\n")
	if b, err := in.root.ReadFile("usr/sbin/policy-rc.d"); string(b) != "theirs" {
		t.Errorf("policy-rc.d: %q, %v", b, err)
	}

	for _, id := range []string{"rocky", "sles"} {
		in, said := imageRoot(t, "bios", "bios-lvm", osFiles(id, map[string]string{"rocky": "rhel", "sles": "suse"}[id], "usr/bin/dnf"))
		in.plan.Proxy = "http://10.0.0.1:8000/"
		if err := in.installPackages(t.Context(), in.family(), []string{"lvm2"}); err != nil {
			t.Fatal(err)
		}
		golden(t, "packages-"+id+".txt", strings.Join(*said, "\n")+"\n")
	}

	// no archive: a sentence, and nothing stays behind
	in, _ = imageRoot(t, "bios", "bios-lvm", osFiles("debian", "", "usr/bin/apt-get", "usr/bin/dpkg-divert"))
	in.cmd.fake = func(_, _ string, argv []string) (string, error) {
		if argv[0] == "apt-get" {
			return "E:\u00a0Could-not-resolve", errors.New("exit status 100")
		}
		return "", nil
	}
	err := in.installPackages(t.Context(), in.family(), []string{"lvm2"})
	if err == nil || !strings.Contains(err.Error(), "could not be installed from its own archive") || !strings.Contains(err.Error(), "lvm2") || !strings.Contains(err.Error(), "apt-get") {
		t.Errorf("%v", err)
	}
	for _, p := range []string{"usr/sbin/policy-rc.d", "usr/sbin/update-initramfs"} {
		if in.has(p) {
			t.Errorf("%s stays", p)
		}
	}
	in, _ = imageRoot(t, "bios", "bios-lvm", osFiles("plan9", ""))
	if err := in.installPackages(t.Context(), in.family(), []string{"lvm2"}); err == nil || !strings.Contains(err.Error(), "plan9") {
		t.Errorf("%v", err)
	}
}

// TestBootLoaders: the boot loader of each family on each firmware.
func TestBootLoaders(t *testing.T) {
	for _, c := range []struct {
		name, firmware, plan string
		files                map[string]string
		show                 []string
	}{
		{"debian-bios", "bios", "bios-lvm", osFiles("debian", "", "usr/sbin/grub-install", "boot/vmlinuz-6.1", "boot/initrd.img-6.1", "etc/default/grub.d/50-cloudimg-settings.cfg"),
			[]string{"boot/grub/grub.cfg", "etc/default/grub.d/50-ingot.cfg", "etc/default/grub.d/50-cloudimg-settings.cfg.disabled"}},
		{"rocky-bios", "bios", "bios-lvm", func() map[string]string {
			m := osFiles("rocky", "rhel", "usr/sbin/grub2-install", "usr/sbin/grub2-mkconfig", "usr/bin/dracut", "boot/vmlinuz-5.14", "boot/initramfs-5.14.img")
			m["etc/default/grub"] = "GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX=\"root=/dev/old\"\nGRUB_ENABLE_BLSCFG=true\n"
			m["boot/loader/entries/abc-5.14.conf"] = "title Rocky\nversion 5.14\nlinux /vmlinuz-5.14\ninitrd /initramfs-5.14.img $tuned_initrd\noptions root=/dev/old ro $tuned_params\ngrub_class rocky\n"
			return m
		}(), []string{"boot/loader/entries/abc-5.14.conf", "etc/default/grub", "etc/kernel/cmdline"}},
		{"rocky-uefi", "uefi", "uefi-raid1-lvm", osFiles("rocky", "rhel", "usr/sbin/grub2-mkconfig", "usr/bin/dracut", "boot/vmlinuz-5.14", "boot/initramfs-5.14.img",
			"boot/efi/EFI/rocky/shimx64.efi", "boot/efi/EFI/rocky/grubx64.efi", "boot/efi/EFI/BOOT/fbx64.efi"),
			[]string{"boot/efi/EFI/rocky/grub.cfg", "boot/efi/EFI/BOOT/grub.cfg", "boot/efi/EFI/BOOT/BOOTX64.EFI", "boot/efi/EFI/BOOT/fbx64.efi"}},
		{"sles-uefi", "uefi", "uefi-raid1-lvm", osFiles("sles", "suse", "usr/sbin/grub2-mkconfig", "boot/vmlinuz-6.4", "boot/initrd-6.4", "usr/share/efi/x86_64/shim.efi", "usr/share/efi/x86_64/grub.efi"),
			[]string{"boot/efi/EFI/sles/grub.cfg", "boot/efi/EFI/sles/shim.efi", "boot/efi/EFI/BOOT/grub.efi", "etc/default/grub"}},
		{"debian-uefi", "uefi", "uefi-raid1-lvm", osFiles("debian", "", "usr/sbin/grub-install", "boot/vmlinuz-6.1", "boot/initrd.img-6.1", "boot/efi/EFI/debian/shimx64.efi", "etc/default/grub"),
			[]string{"boot/grub/grub.cfg"}},
	} {
		if DebianArch() != "amd64" {
			t.Skip("the names are those of amd64")
		}
		t.Run(c.name, func(t *testing.T) {
			in, said := imageRoot(t, c.firmware, c.plan, c.files)
			f := in.family()
			install, dir := "grub-install", "boot/grub"
			if f != debianFamily {
				install, dir = "grub2-install", "boot/grub2"
			}
			var err error
			if c.firmware == "bios" {
				err = in.bootloader(t.Context(), f)
			} else { // without the copies, which are mounted
				opts := in.kernelOpts(f)
				err = errors.Join(in.grubSettings(f, opts), in.efiLoader(t.Context(), f, install, dir), in.grubMenu(t.Context(), f, dir, opts))
			}
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Join(*said, "\n") + "\n"
			for _, p := range c.show {
				b, err := in.root.ReadFile(p)
				text += fmt.Sprintf("\n--- %s\n%s", p, b)
				if err != nil {
					text += "not there\n"
				}
			}
			golden(t, "boot-"+c.name+".txt", text)
		})
	}
	// an image without a kernel and without a tool for the menu cannot start
	in, _ := imageRoot(t, "bios", "bios-lvm", osFiles("debian", "", "usr/sbin/grub-install"))
	if err := in.bootloader(t.Context(), debianFamily); err == nil || !strings.Contains(err.Error(), "no kernel") {
		t.Errorf("%v", err)
	}
	in, _ = imageRoot(t, "bios", "bios-lvm", osFiles("debian", ""))
	if err := in.bootloader(t.Context(), debianFamily); err == nil || !strings.Contains(err.Error(), "no grub-install") {
		t.Errorf("%v", err)
	}
	if err := in.rebuild(t.Context()); err == nil || !strings.Contains(err.Error(), "neither update-initramfs nor dracut") {
		t.Errorf("%v", err)
	}
}

const efibootmgrText = "BootCurrent: 0005\nTimeout: 3 seconds\nBootOrder: 0000,0001,0005,0006,0007,0002\n" +
	"Boot0000* UiApp\tFvVol(7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1)/FvFile(462caa21-7614-4503-836e-8ab6f4662331)\n" +
	"Boot0001* debian\tHD(1,GPT,11111111-0000-4000-8000-000000000001,0x2000,0x40000)/File(\\EFI\\debian\\shimx64.efi)\n" +
	"Boot0002* windows\tHD(1,GPT,22222222-0000-4000-8000-000000000001,0x2000,0x40000)/File(\\EFI\\Microsoft\\Boot\\bootmgfw.efi)\n" +
	"Boot0005* UEFI PXEv4 (MAC:525400770001)\tPciRoot(0x0)/Pci(0x2,0x0)/MAC(525400770001,1)/IPv4(0.0.0.0,0,DHCP,0.0.0.0,0.0.0.0,0.0.0.0)\n" +
	"Boot0006* UEFI HTTPv4 (MAC:525400770001)\tPciRoot(0x0)/Pci(0x2,0x0)/MAC(525400770001,1)/IPv4(0.0.0.0)/Uri()\n" +
	"Boot0007  UEFI HTTPv4 (MAC:525400770001)\tPciRoot(0x0)/Pci(0x2,0x0)/MAC(525400770001,1)/IPv4(0.0.0.0)/Uri()\n"

func TestBootOrder(t *testing.T) {
	b := parseBootEntries(efibootmgrText)
	if b.current != "0005" || len(b.order) != 6 || len(b.entries) != 6 || b.entries[4].label != "UEFI HTTPv4 (MAC:525400770001)" {
		t.Fatalf("%+v", b)
	}
	win := map[string]bool{"22222222-0000-4000-8000-000000000001": true}
	// debian's partition is no more, 0007 is a double of 0006; the other system on another disk stays
	if got := b.outdated(win, nil); !slices.Equal(got, []string{"0001", "0007"}) {
		t.Errorf("%v", got)
	}
	if got := b.outdated(win, win); !slices.Equal(got, []string{"0001", "0002", "0007"}) {
		t.Errorf("%v", got)
	}
	b.current = "0001"
	if got := b.outdated(win, nil); slices.Contains(got, "0001") {
		t.Errorf("what this boot came by is dropped: %v", got)
	}
	for current, want := range map[string]string{
		"0005": "0005,0002,0000,0001,0006,0007", "": "0005,0006,0007,0002,0000,0001", "0099": "0005,0006,0007,0002,0000,0001", "0002": "0005,0006,0007,0002,0000,0001",
	} {
		b.current = current
		if got := strings.Join(b.newOrder([]string{"0002"}), ","); got != want {
			t.Errorf("current %q: %s, want %s", current, got, want)
		}
	}
}

// TestNVRAM: the commands, and that no firmware makes an installation fail.
func TestNVRAM(t *testing.T) {
	if DebianArch() != "amd64" {
		t.Skip("the names are those of amd64")
	}
	files := osFiles("debian", "", "boot/efi/EFI/debian/shimx64.efi")
	in, _ := imageRoot(t, "uefi", "uefi-raid1-lvm", files)
	var said []string
	text := efibootmgrText
	in.cmd.fake = func(_, _ string, argv []string) (string, error) {
		line := strings.Join(argv, " ")
		if line == "efibootmgr -v" {
			return text, nil
		}
		said = append(said, line)
		if slices.Contains(argv, "-c") {
			n := fmt.Sprintf("%04X", 0x10+len(said))
			text = strings.Replace(text, "BootOrder: ", "BootOrder: "+n+",", 1) + "Boot" + n + "* debian\tHD(1,GPT,x)\n"
		}
		return "", nil
	}
	in.nvram(t.Context())
	golden(t, "nvram.txt", strings.Join(said, "\n")+"\n")

	for _, broken := range []string{"-v", "-c", "-B", "-o"} {
		in.cmd.fake = func(_, _ string, argv []string) (string, error) {
			if slices.Contains(argv, broken) {
				return "", errors.New("No space left on device")
			}
			return efibootmgrText, nil
		}
		in.nvram(t.Context()) // it says so in the log, and that is all
	}
	if got := espFiles([]string{"ABCD-1234", "F5F5-0006"}); find("/", "sh") != "" {
		p := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(p, []byte(got[0].content), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("sh", "-n", p).CombinedOutput(); err != nil || !strings.Contains(got[0].content, "for uuid in ABCD-1234 F5F5-0006; do") {
			t.Errorf("%v: %s", err, out)
		}
	}
}

func TestRelabel(t *testing.T) {
	for mode, want := range map[string]bool{"SELINUX=enforcing\n": true, "SELINUX=disabled\n": false, "": false} {
		files := osFiles("rocky", "rhel")
		if mode != "" {
			files["etc/selinux/config"] = mode
		}
		in, _ := imageRoot(t, "bios", "bios-lvm", files)
		if err := in.relabel(); err != nil || in.has(".autorelabel") != want {
			t.Errorf("%q: %v, %v", mode, in.has(".autorelabel"), err)
		}
	}
}

// TestMBRAgainstSfdisk: another reader understands the table, logical partitions included.
func TestMBRAgainstSfdisk(t *testing.T) {
	if find("/", "sfdisk") == "" {
		t.Skip("sfdisk is not installed (package fdisk)")
	}
	d := fileDisk(t, "disk", 256<<20)
	parts := mustLayout(t, "msdos", d.Size, 512,
		api.StorageItem{Number: 1, Size: 64 << 20, Flag: "boot"}, api.StorageItem{Number: 4, Size: 128 << 20, Flag: "extended"},
		api.StorageItem{Number: 5, Size: 31 << 20, Flag: "logical"}, api.StorageItem{Number: 6, Size: 31 << 20, Flag: "logical"}, api.StorageItem{Number: 7, Size: 63 << 20, Flag: "logical"})
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = writeTable(f, "msdos", "5708a6e0", d.Size, 512, parts)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(find("/", "sfdisk"), "--verify", d.Path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No errors detected") {
		t.Fatalf("sfdisk --verify: %v\n%s", err, out)
	}
	out, err = exec.Command(find("/", "sfdisk"), "--dump", d.Path).CombinedOutput()
	dump := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range []string{"label: dos", "label-id: 0x5708a6e0", "disk1 : start= 8192, size= 131072, type=ef", "disk4 : start= 139264, size= 262144, type=f", "disk5 : start= 141312, size= 63488, type=83",
		"disk6 : start= 206848, size= 63488, type=83", "disk7 : start= 272384, size= 129024, type=83"} {
		if err != nil || !strings.Contains(dump, want) {
			t.Errorf("sfdisk --dump lacks %q: %v\n%s", want, err, out)
		}
	}
	// beyond what the table can say
	if err := writeMBR(discardAt{}, 4<<40, 512, "5708a6e0", []tablePart{{number: 1, code: 0x83, start: 3 << 40, end: 3<<40 + 1<<30}}); err == nil || !strings.Contains(err.Error(), "use a GPT") {
		t.Errorf("%v", err)
	}
}

type discardAt struct{}

func (discardAt) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// TestInitramfsNeeded: an initramfs that brings what the root needs stays.
func TestInitramfsNeeded(t *testing.T) {
	archive := func(names ...string) []byte {
		var b strings.Builder
		for _, n := range append(names, "TRAILER!!!") {
			body := "content"
			if n == "TRAILER!!!" {
				body = ""
			}
			fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", 1, 0o100644, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(n)+1, 0, n)
			for b.Len()%4 != 0 {
				b.WriteByte(0)
			}
			b.WriteString(body)
			for b.Len()%4 != 0 {
				b.WriteByte(0)
			}
		}
		return []byte(b.String())
	}
	micro := append(archive("kernel/x86/microcode/AuthenticAMD.bin"), make([]byte, 512)...)
	for _, c := range []struct {
		plan, initrd, want string
	}{
		{"bios-lvm", string(micro) + string(gz(t, archive("usr/sbin/lvm", "conf/x"))), ""},
		{"bios-lvm", string(archive("usr/sbin/lvm")), ""},
		{"bios-lvm", string(micro) + string(gz(t, archive("usr/sbin/mdadm"))), "it lacks lvm"},
		{"bios-lvm", "lzo or whatever, not known", "compressed in a way"},
		{"bios-lvm", string(micro) + string(gz(t, archive("usr/sbin/lvm")))[:60], "unexpected EOF"},
		{"bcache-shared", string(gz(t, archive("lib/udev/bcache-register", "lib/modules/6.1/bcache.ko.xz"))), ""},
		{"bcache-shared", string(gz(t, archive("lib/udev/bcache-register"))), "it lacks bcache's module"},
		{"uefi-raid1-lvm", string(gz(t, archive("usr/sbin/lvm", "usr/sbin/mdadm"))), "names"},
		{"bios-mbr-two-disks", "", ""},
	} {
		files := osFiles("debian", "", "boot/vmlinuz-6.1")
		files["boot/initrd.img-6.1"] = c.initrd
		in, _ := imageRoot(t, strings.Split(c.plan, "-")[0], c.plan, files)
		if got := in.needsInitramfs(); got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %q, want %q", c.plan, got, c.want)
		}
	}
	in, _ := imageRoot(t, "bios", "bios-lvm", osFiles("debian", "", "boot/vmlinuz-6.1"))
	if got := in.needsInitramfs(); got != "there is none" {
		t.Errorf("%q", got)
	}
}

func FuzzInitrdNames(f *testing.F) {
	f.Add([]byte("070701"))
	f.Add([]byte{0, 0, 0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = initrdNames(strings.NewReader(string(b)))
	})
}
