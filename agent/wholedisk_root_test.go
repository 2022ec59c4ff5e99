package agent

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
)

// tree makes a directory of files; names that end in / are directories.
func tree(t *testing.T, files map[string]string) (dir string, root *os.Root) {
	t.Helper()
	dir = t.TempDir()
	for p, content := range files {
		at := filepath.Join(dir, p)
		if strings.HasSuffix(p, "/") {
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

func TestRecognise(t *testing.T) {
	last := 0
	for _, c := range []struct {
		files  map[string]string
		kind   systemKind
		prefix string
	}{
		{map[string]string{"EFI/BOOT/BOOTX64.EFI": ""}, "", ""},
		{map[string]string{"WINDOWS/system32/": ""}, kindWindows, ""},
		{map[string]string{"usr/lib/os-release": ""}, kindLinux, ""},
		{map[string]string{"system-data/var/lib/snapd/": ""}, kindCore, "system-data"},
		{map[string]string{"curtin/": ""}, kindOther, ""},
		{map[string]string{"curtin/finalize": "", "Windows/System32/": ""}, kindWindows, ""},
		{map[string]string{"curtin/curtin-hooks": "", "etc/os-release": ""}, kindLinux, ""},
	} {
		_, root := tree(t, c.files)
		s, rank := recognise(root)
		if s.kind != c.kind || s.prefix != c.prefix || rank < last {
			t.Errorf("%v: %+v, rank %d", c.files, s, rank)
		}
		last = rank
	}
	// what leads out of the partition is not looked at
	dir, root := tree(t, nil)
	if err := os.Symlink("/", filepath.Join(dir, "usr")); err != nil {
		t.Fatal(err)
	}
	if s, rank := recognise(root); rank != 0 {
		t.Errorf("a link out of the image was followed: %+v", s)
	}
}

func TestEnsureLoader(t *testing.T) {
	if DebianArch() != "amd64" {
		t.Skip("names of amd64")
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string // content of the removable path; "": there is none
		grub  string
	}{
		"there":         {map[string]string{"EFI/Boot/bootx64.efi": "own", "EFI/debian/grubx64.efi": "g"}, "own", ""},
		"empty file":    {map[string]string{"EFI/BOOT/BOOTX64.EFI": "", "EFI/debian/grubx64.efi": "g"}, "g", ""},
		"shim":          {map[string]string{"EFI/ubuntu/shimx64.efi": "s", "EFI/ubuntu/grubx64.efi": "g"}, "s", "g"},
		"shim, capital": {map[string]string{"efi/UBUNTU/SHIMX64.EFI": "s", "efi/UBUNTU/GRUBX64.EFI": "g"}, "s", "g"},
		"Windows":       {map[string]string{"EFI/Microsoft/Boot/bootmgfw.efi": "w"}, "w", ""},
		"unknown":       {map[string]string{"EFI/x/y.efi": "?"}, "", ""},
		"nothing":       {nil, "", ""},
	} {
		dir, root := tree(t, c.files)
		ok, err := ensureLoader(dir, t.Logf)
		if err != nil || ok != (c.want != "") {
			t.Errorf("%s: %v, %v", name, ok, err)
			continue
		}
		if c.want == "" {
			continue
		}
		if b, err := root.ReadFile(fold(root, "EFI/BOOT/BOOTX64.EFI")); string(b) != c.want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if c.grub != "" {
			if b, err := root.ReadFile(fold(root, "EFI/BOOT/grubx64.efi")); string(b) != c.grub {
				t.Errorf("%s: GRUB %q, %v", name, b, err)
			}
		}
	}
}

func imageInstaller(t *testing.T, files map[string]string, plan api.InstallPlan) (*installer, *os.Root) {
	t.Helper()
	dir, root := tree(t, files)
	own, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	rep := NewReporter(io.Discard)
	return &installer{plan: plan, rep: rep, cmd: commander{log: rep.Line}, mountAt: dir, root: own}, root
}

func TestSeedImage(t *testing.T) {
	seed := []api.SeedFile{{Path: "/etc/cloud/cloud.cfg.d/90.cfg", Content: "linux", Mode: 0o600}}
	in, root := imageInstaller(t, map[string]string{"etc/os-release": "", "etc/machine-id": strings.Repeat("a", 32), "etc/hosts": "127.0.0.1 localhost\n"}, api.InstallPlan{Hostname: "node1", Seed: seed})
	if err := in.seedImage(imageSystem{kind: kindLinux}); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"etc/hostname": "node1\n", "etc/machine-id": "", "etc/cloud/cloud.cfg.d/90.cfg": "linux", "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 node1\n"} {
		if b, err := root.ReadFile(p); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", p, b, err)
		}
	}
	in, root = imageInstaller(t, map[string]string{"PROGRAM FILES/Cloudbase Solutions/": "", "Windows/System32/": ""},
		api.InstallPlan{OSystem: "windows", Hostname: "node1", Seed: []api.SeedFile{{Path: "Program Files/Cloudbase Solutions/Cloudbase-Init/conf/cloudbase-init.conf", Content: "w"}}})
	if err := in.seedImage(imageSystem{kind: kindWindows}); err != nil {
		t.Fatal(err)
	}
	if b, err := root.ReadFile("PROGRAM FILES/Cloudbase Solutions/Cloudbase-Init/conf/cloudbase-init.conf"); err != nil || string(b) != "w" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := root.Stat("etc"); err == nil {
		t.Error("a Windows system was given /etc")
	}
	in, root = imageInstaller(t, map[string]string{"system-data/var/lib/snapd/": ""}, api.InstallPlan{Seed: append(seed, api.SeedFile{Path: "/etc/passwd", Content: "x"})})
	if err := in.seedImage(imageSystem{kind: kindCore, prefix: "system-data"}); err != nil {
		t.Fatal(err)
	}
	if b, err := root.ReadFile("system-data/etc/cloud/cloud.cfg.d/90.cfg"); err != nil || string(b) != "linux" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := root.Stat("system-data/etc/passwd"); err == nil {
		t.Error("a file that has no place in Ubuntu Core was written")
	}
}

// TestSeedStaysInside writes through no link that an image has laid.
func TestSeedStaysInside(t *testing.T) {
	outside := t.TempDir()
	in, _ := imageInstaller(t, nil, api.InstallPlan{Seed: []api.SeedFile{{Path: "/etc/cloud/x", Content: "x"}}})
	if err := os.Symlink(outside, filepath.Join(in.mountAt, "etc")); err != nil {
		t.Fatal(err)
	}
	if err := in.seedImage(imageSystem{kind: kindLinux}); err == nil {
		t.Error("no error")
	}
	if ents, _ := os.ReadDir(outside); len(ents) != 0 {
		t.Errorf("written outside: %v", ents)
	}
}

func TestImageHooks(t *testing.T) {
	hook := "#!/bin/sh\nset -eu\ntest -d \"$TARGET_MOUNT_POINT\" -a -f \"$OUTPUT_FSTAB\" -a -d \"$WORKING_DIR\"\ngrep -q '\"version\":2' \"$OUTPUT_NETWORK_STATE\"\ngrep -q cloudconfig \"$CONFIG\"\necho done > \"$TARGET_MOUNT_POINT/ran\"\n"
	plan := api.InstallPlan{Network: map[string]any{"version": 2}, Seed: []api.SeedFile{{Path: "/etc/x.cfg", Content: "c"}}}
	in, root := imageInstaller(t, map[string]string{"curtin/finalize": hook}, plan)
	if ran, err := in.imageHook(t.Context(), imageSystem{kind: kindLinux, curtin: true}, "finalize"); err != nil || !ran {
		t.Fatalf("%v, %v", ran, err)
	}
	if b, _ := root.ReadFile("ran"); string(b) != "done\n" {
		t.Fatalf("%q", b)
	}
	if ran, err := in.imageHook(t.Context(), imageSystem{kind: kindLinux, curtin: true}, "curtin-hooks"); err != nil || ran {
		t.Fatalf("a program that is not there: %v, %v", ran, err)
	}
	in, _ = imageInstaller(t, map[string]string{"curtin/finalize": "#!/bin/sh\necho first >&2\necho last words\nexit 3\n"}, plan)
	if _, err := in.imageHook(t.Context(), imageSystem{curtin: true}, "finalize"); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "first | last words") {
		t.Fatalf("%v", err)
	}
	for kind, fails := range map[systemKind]bool{kindOther: true, kindLinux: false, kindWindows: false} {
		in, _ = imageInstaller(t, map[string]string{"curtin/finalize": "#!/usr/bin/env python-of-nobody\n"}, plan)
		if ran, err := in.imageHook(t.Context(), imageSystem{kind: kind, curtin: true}, "finalize"); ran || (err != nil) != fails || fails && !strings.Contains(err.Error(), "python-of-nobody") {
			t.Errorf("%s without an interpreter: %v, %v", kind, ran, err)
		}
		if !fails && !bytes.Contains(in.rep.Log(), []byte("does not have: it is not run")) {
			t.Errorf("%s: nobody was told", kind)
		}
	}
}

func TestShebang(t *testing.T) {
	for line, want := range map[string]string{"#!/bin/sh -e\nx": "/bin/sh", "#!/usr/bin/env python3\n": "/usr/bin/env python3", "#!/usr/bin/env -S A=b python3 -u": "/usr/bin/env python3", "\x7fELF": "", "#!": "", "#! /bin/bash": "/bin/bash"} {
		i, more := shebang([]byte(line))
		if got := strings.TrimSpace(i + " " + strings.Join(more, " ")); got != want {
			t.Errorf("%q: %q", line, got)
		}
	}
}

func TestProbeFS(t *testing.T) {
	put := func(off int, s string) []byte {
		return append(make([]byte, off), append([]byte(s), make([]byte, 70_000)...)...)
	}
	for want, b := range map[string][]byte{"xfs": put(0, "XFSB"), "ntfs3": put(3, "NTFS    "), "vfat": put(0x52, "FAT32"), "ext4": put(0x438, "\x53\xef"), "btrfs": put(0x10040, "_BHRfS_M"), "lvm": put(0x218, "LVM2 001"), "": put(0, "x")} {
		if got := probeFS(bytes.NewReader(b)); got != want {
			t.Errorf("%s: %q", want, got)
		}
	}
	if probeFS(bytes.NewReader(nil)) != "" {
		t.Error("nothing was taken for something")
	}
}
