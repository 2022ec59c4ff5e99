package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"golang.org/x/sys/unix"
)

func TestMemoryRoom(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int64{
		"MemTotal:  4194304 kB\nMemFree: 1 kB\nMemAvailable: 4000000 kB\n": 4000000<<10 - 512*mib,
		"MemTotal:  262144 kB\nMemAvailable: 100000 kB\n":                  0,
		"MemTotal: x kB\n": -1,
		"":                 -1,
	} {
		if err := os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, _, err := memoryRoom(system{root})
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

func TestInitOf(t *testing.T) {
	root := t.TempDir()
	put := func(p string, mode os.FileMode) {
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, p string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, p)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(root, p)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := initOf(root); err == nil {
		t.Fatal("an empty tree has an init")
	}
	link("../../../../../../bin/sh", "sbin/init") // as from inside: there is no /bin/sh
	if p, err := initOf(root); err == nil {
		t.Fatalf("%s of the machine around was taken", p)
	}
	put("usr/lib/systemd/systemd", 0o644)
	if p, err := initOf(root); err == nil {
		t.Fatalf("%s cannot be run", p)
	}
	if err := os.Chmod(filepath.Join(root, "usr/lib/systemd/systemd"), 0o755); err != nil {
		t.Fatal(err)
	}
	link("usr/lib", "lib")
	if err := os.Remove(filepath.Join(root, "sbin/init")); err != nil {
		t.Fatal(err)
	}
	link("/lib/systemd/systemd", "sbin/init") // absolute, through another link
	if p, err := initOf(root); err != nil || p != "/sbin/init" {
		t.Fatalf("%s, %v", p, err)
	}
	link("loop", "loop")
	if followIn(root, "/loop") {
		t.Fatal("a circle leads somewhere")
	}
}

// TestMemoryRefusals touches nothing: neither a disk nor a mount.
func TestMemoryRefusals(t *testing.T) {
	run := func(plan api.InstallPlan) error {
		r := newRegion(t)
		in := &installer{plan: plan, configURL: r.configURL(), rep: NewReporter(os.Stderr), mountAt: filepath.Join(t.TempDir(), "root")}
		var err error
		in.runMemory(t.Context(), func(_, _ string, f func() error) {
			if err == nil {
				err = f()
			}
		})
		if in.mounts != nil {
			_ = unix.Unmount(in.mountAt, 0)
			t.Error("something was mounted")
		}
		return err
	}
	img := func(typ string, size int64) api.ImageSource {
		return api.ImageSource{Path: "a/b", Type: typ, Size: size}
	}
	for want, plan := range map[string]api.InstallPlan{
		"cannot be deployed to memory":     {Memory: true, Image: img("root-dd.gz", 1)},
		"names disks":                      {Memory: true, Image: img("squashfs", 1), Storage: []api.StorageItem{{Type: api.StorageDisk}}},
		"does not fit into this machine's": {Memory: true, Image: img("squashfs", 1<<50)},
		"host name":                        {Memory: true, Image: img("squashfs", 1), Hostname: "a b"},
	} {
		if err := run(plan); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	in := &installer{}
	if err := in.noRoom(mib, 2*mib, unix.ENOSPC); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
}
