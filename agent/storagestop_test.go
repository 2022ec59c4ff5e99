package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// blockSys is a system in a directory, with block devices as sysfs shows them. Stopping a device takes it out.
type blockSys struct {
	t    *testing.T
	sys  system
	said []string
}

func newBlockSys(t *testing.T) *blockSys {
	return &blockSys{t: t, sys: system{t.TempDir()}}
}

func (b *blockSys) put(p, content string) {
	b.t.Helper()
	p = filepath.Join(b.sys.root, p)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *blockSys) link(to, p string) {
	b.t.Helper()
	p = filepath.Join(b.sys.root, p)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(b.sys.root, to), p); err != nil {
		b.t.Fatal(err)
	}
}

// device makes a whole device or, with a parent, a partition, which lies on others.
func (b *blockSys) device(name, dev, parent string, on ...string) {
	home := "sys/devices/" + name
	if parent != "" {
		home = "sys/devices/" + parent + "/" + name
		b.put(home+"/partition", "1")
	}
	b.put(home+"/dev", dev+"\n")
	b.link(home, "sys/class/block/"+name)
	for _, o := range on {
		b.link("sys/class/block/"+name, "sys/class/block/"+o+"/holders/"+name)
		b.link("sys/class/block/"+o, "sys/class/block/"+name+"/slaves/"+o)
	}
}

// gone removes a device and what points to it.
func (b *blockSys) gone(name string) {
	_ = filepath.WalkDir(b.sys.root, func(p string, d os.DirEntry, err error) error {
		if err == nil && filepath.Base(p) == name {
			_ = os.RemoveAll(p)
			if d.IsDir() {
				return filepath.SkipDir
			}
		}
		return nil
	})
}

func (b *blockSys) stopper(disks ...string) stopper {
	var ds []Disk
	for _, d := range disks {
		ds = append(ds, Disk{Name: d, Path: "/dev/" + d})
	}
	cmd := commander{fake: func(_, _ string, argv []string) (string, error) {
		b.said = append(b.said, strings.Join(argv, " "))
		switch {
		case argv[0] == "mdadm":
			b.gone(filepath.Base(argv[2]))
		case argv[0] == "dmsetup":
			for _, n := range b.sys.list("sys/class/block") {
				if b.sys.read("sys/class/block", n, "dm/name") == argv[len(argv)-1] {
					b.gone(n)
				}
			}
		}
		return "", nil
	}}
	st := newStopper(b.sys, cmd, b.t.Logf, ds)
	st.settle = time.Second
	st.umount = func(at string) error {
		b.said = append(b.said, "umount "+at)
		var left []string
		for _, l := range strings.Split(b.sys.read("proc/self/mountinfo"), "\n") {
			if !strings.Contains(l, " "+strings.ReplaceAll(at, " ", `\040`)+" rw") {
				left = append(left, l)
			}
		}
		b.put("proc/self/mountinfo", strings.Join(left, "\n"))
		return nil
	}
	st.swapoff = func(dev string) error {
		b.said = append(b.said, "swapoff "+dev)
		b.put("proc/swaps", "Filename\n")
		return nil
	}
	return st
}

// machine: vda2 and vdb2 are an array with a volume group on it; vdc is nobody's business.
func raidLVM(t *testing.T) *blockSys {
	b := newBlockSys(t)
	for i, d := range []string{"vda", "vdb", "vdc"} {
		n := string(rune('0' + i))
		b.device(d, "25"+n+":0", "")
		b.device(d+"1", "25"+n+":1", d)
		b.device(d+"2", "25"+n+":2", d)
	}
	b.device("md127", "9:127", "", "vda2", "vdb2")
	b.device("dm-0", "253:0", "", "md127")
	b.device("dm-1", "253:1", "", "md127")
	b.put("sys/class/block/dm-0/dm/name", "vgroot-lvroot\n")
	b.put("sys/class/block/dm-1/dm/name", "vgroot-swap\n")
	b.put("proc/swaps", "Filename Type Size Used Priority\n/dev/dm-1 partition 1 0 -2\n/dev/vdc2 partition 1 0 -2\n")
	b.put("proc/self/mountinfo", "20 1 0:5 / / rw - tmpfs tmpfs rw\n21 20 253:0 / /mnt rw - ext4 /dev/mapper/vgroot-lvroot rw\n"+
		`22 21 250:1 / /mnt/a\040b rw - vfat /dev/vda1 rw`+"\n23 20 252:1 / /other rw - ext4 /dev/vdc1 rw\n24 20 0:44 / /b rw - btrfs /dev/vdb1 rw\n")
	return b
}

func TestStopFromTheTop(t *testing.T) {
	b := raidLVM(t)
	if err := b.stopper("vda", "vdb").stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(b.said, "\n")
	want := "swapoff /dev/dm-1\numount /b\numount /mnt/a b\numount /mnt\ndmsetup remove --retry vgroot-lvroot\ndmsetup remove --retry vgroot-swap\nmdadm --stop /dev/md127"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// a second time there is nothing to do
	b.said = nil
	if err := b.stopper("vda", "vdb").stop(t.Context()); err != nil || b.said != nil {
		t.Errorf("%v, %v", b.said, err)
	}
}

func TestStopRefusesForeignDisks(t *testing.T) {
	b := raidLVM(t)
	err := b.stopper("vda").stop(t.Context())
	if err == nil || !strings.Contains(err.Error(), "stop md127") || !strings.Contains(err.Error(), "also lies on vdb") {
		t.Errorf("%v", err)
	}
	for _, s := range b.said {
		if strings.Contains(s, "mdadm") {
			t.Errorf("%s", s)
		}
	}
	b = raidLVM(t)
	b.put("proc/self/mountinfo", "20 1 252:1 / / rw - ext4 /dev/vdc1 rw\n")
	if err := b.stopper("vdc").stop(t.Context()); err == nil || !strings.Contains(err.Error(), "holds the running system") {
		t.Errorf("%v", err)
	}
	// what cannot be stopped is said
	b = newBlockSys(t)
	b.device("vda", "250:0", "")
	b.device("drbd0", "147:0", "", "vda")
	if err := b.stopper("vda").stop(t.Context()); err == nil || !strings.Contains(err.Error(), "stop drbd0") {
		t.Errorf("%v", err)
	}
}

func TestStopBcache(t *testing.T) {
	build := func() *blockSys {
		b := newBlockSys(t)
		b.device("vda", "250:0", "")
		b.device("vdb", "251:0", "")
		b.device("vda1", "250:1", "vda")
		b.device("bcache0", "252:0", "", "vda1")
		b.put("sys/class/block/bcache0/bcache/stop", "")
		b.put("sys/class/block/vda1/bcache/stop", "")
		b.link("sys/class/block/bcache0", "sys/class/block/vda1/bcache/dev")
		b.put("sys/fs/bcache/SET/stop", "")
		b.link("sys/fs/bcache/SET", "sys/devices/vdb/bcache/set")
		b.link("sys/devices/vda/vda1/bcache", "sys/fs/bcache/SET/bdev0")
		return b
	}
	// the kernel takes devices away when it is told to
	kernel := func(b *blockSys) func() {
		done := make(chan struct{})
		go func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if b.sys.read("sys/class/block/bcache0/bcache/stop") == "1" {
					b.gone("bcache0")
					_ = os.RemoveAll(b.sys.path("sys/devices/vda/vda1/bcache"))
					_ = os.Remove(b.sys.path("sys/fs/bcache/SET/bdev0"))
				}
				if b.sys.read("sys/fs/bcache/SET/stop") == "1" {
					_ = os.RemoveAll(b.sys.path("sys/devices/vdb/bcache"))
				}
				time.Sleep(time.Millisecond)
			}
		}()
		return func() { close(done) }
	}
	b := build()
	end := kernel(b)
	err := b.stopper("vda", "vdb").stop(t.Context())
	end()
	if err != nil || b.sys.exists("sys/class/block/bcache0") || b.sys.exists("sys/class/block/vdb/bcache") {
		t.Errorf("%v", err)
	}
	// the cache of another disk's data stays
	b = build()
	if err := b.stopper("vdb").stop(t.Context()); err == nil || !strings.Contains(err.Error(), "also lies on vda") {
		t.Errorf("%v", err)
	}
	if b.sys.read("sys/fs/bcache/SET/stop") != "" {
		t.Error("a cache set that also serves another disk was stopped")
	}
	// a device that will not go is an error, not a wait without end
	b = build()
	st := b.stopper("vda", "vdb")
	st.settle = 10 * time.Millisecond
	if err := st.stop(t.Context()); err == nil || !strings.Contains(err.Error(), "does not go away") {
		t.Errorf("%v", err)
	}
}

func TestStopFails(t *testing.T) {
	b := raidLVM(t)
	st := b.stopper("vda", "vdb")
	st.umount = func(string) error { return errors.New("device or resource busy") }
	if err := st.stop(t.Context()); err == nil || !strings.Contains(err.Error(), "unmount vdb1 from /b") {
		t.Errorf("%v", err)
	}
}
