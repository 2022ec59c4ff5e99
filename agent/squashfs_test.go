package agent

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// squashed makes a squashfs of a tree.
func squashed(t testing.TB, dir, compression string, more ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip("mksquashfs is not installed")
	}
	out := filepath.Join(t.TempDir(), "image")
	if b, err := exec.Command("mksquashfs", append([]string{dir, out, "-comp", compression, "-noappend", "-quiet", "-no-progress", "-processors", "1"}, more...)...).CombinedOutput(); err != nil {
		t.Skipf("mksquashfs -comp %s: %v %s", compression, err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// squashTree is a small root file system with everything that the reader looks at.
func squashTree(t testing.TB) (dir string, bytes int64, entries int) {
	t.Helper()
	dir = t.TempDir()
	put := func(p string, b []byte) {
		p = filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
		bytes += int64(len(b))
	}
	put("etc/os-release", []byte("ID=test\n"))
	big := make([]byte, 700_001)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(big)
	put("usr/bin/big", big)
	for i := range 300 { // more than a directory's run holds
		put("many/file-"+strings.Repeat("x", i%50)+string(rune('a'+i%26))+string(rune('0'+i/26)), []byte{byte(i%255 + 1)}) // a file of zeros would be a hole
	}
	if err := os.Link(filepath.Join(dir, "usr/bin/big"), filepath.Join(dir, "usr/bin/again")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	_ = filepath.WalkDir(dir, func(p string, _ os.DirEntry, _ error) error { entries++; return nil })
	return dir, bytes, entries - 1
}

func TestInspectSquash(t *testing.T) {
	dir, size, entries := squashTree(t)
	for _, c := range []string{"gzip", "xz", "zstd"} {
		for _, more := range [][]string{nil, {"-no-fragments"}, {"-noI"}, {"-b", "4096"}} {
			b := squashed(t, dir, c, more...)
			got, err := inspectSquash(bytes.NewReader(b), int64(len(b)), 1<<30)
			if err != nil || got.entries != entries {
				t.Errorf("%s %v: %+v, %v; want %d entries", c, more, got, err, entries)
			}
			if got.bytes != size { // a file with two names takes its room once
				t.Errorf("%s %v: %d bytes, the tree has %d", c, more, got.bytes, size)
			}
			if _, err := inspectSquash(bytes.NewReader(b), int64(len(b)), 100_000); err == nil || !strings.Contains(err.Error(), "room for") {
				t.Errorf("%s: a bomb was not seen: %v", c, err)
			}
			if _, err := inspectSquash(bytes.NewReader(b[:len(b)/2]), int64(len(b)/2), 1<<30); err == nil || !strings.Contains(err.Error(), "cut off") {
				t.Errorf("%s: cut off: %v", c, err)
			}
		}
	}
	for _, c := range []string{"lz4", "lzo"} {
		b := squashed(t, dir, c)
		if _, err := inspectSquash(bytes.NewReader(b), int64(len(b)), 1<<30); err == nil || !strings.Contains(err.Error(), errSquashCompression.Error()) {
			t.Errorf("%s: %v", c, err)
		}
	}
}

// TestHostileSquash changes images as an attacker would: names that climb, a link and a directory of the same name, a directory inside
// itself. The tables are not packed (-noI), so that they can be changed in place.
func TestHostileSquash(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"aaaaa/bbbbb", "ccccc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "aaaaa/bbbbb/ddddd"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "aaaab")); err != nil {
		t.Fatal(err)
	}
	good := squashed(t, dir, "gzip", "-noI", "-noId")
	if _, err := inspectSquash(bytes.NewReader(good), int64(len(good)), 1<<30); err != nil {
		t.Fatal(err)
	}
	dirs := int(binary.LittleEndian.Uint64(good[72:]))
	change := func(from, to string) []byte {
		b := bytes.Clone(good)
		i := bytes.Index(b[dirs:], []byte(from))
		if i < 0 || len(from) != len(to) {
			t.Fatalf("%q is not in the directory table", from)
		}
		copy(b[dirs+i:], to)
		return b
	}
	// the entry of bbbbb made to point to the inode of aaaaa: both are in the first block of the inode table
	circle := bytes.Clone(good)
	a, b := bytes.Index(circle[dirs:], []byte("aaaaa")), bytes.Index(circle[dirs:], []byte("bbbbb"))
	copy(circle[dirs+b-8:dirs+b-6], circle[dirs+a-8:dirs+a-6])
	root := bytes.Clone(good)
	copy(root[32:40], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"climbs":         {change("ddddd", "../dd"), "climbs out"},
		"absolute":       {change("ddddd", "/dddd"), "climbs out"},
		"zero byte":      {change("ddddd", "d\x00ddd"), "climbs out"},
		"name twice":     {change("aaaab", "aaaaa"), "twice"},
		"out of order":   {change("aaaab", "zzzzz"), "twice or out of order"},
		"circle":         {circle, "stands in the tree twice"},
		"root elsewhere": {root, "table"},
		"not one":        {make([]byte, 4096), "does not begin"},
	} {
		if _, err := inspectSquash(bytes.NewReader(c.image), int64(len(c.image)), 1<<30); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func FuzzInspectSquash(f *testing.F) {
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
		f.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "d/e"), 0o755); err != nil {
		f.Fatal(err)
	}
	for _, more := range [][]string{{"-noI", "-noId", "-no-xattrs"}, {"-no-xattrs"}} {
		b := squashed(f, dir, "gzip", more...)
		f.Add(b[:binary.LittleEndian.Uint64(b[40:])])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := inspectSquash(bytes.NewReader(b), int64(len(b)), 1<<20)
		if err == nil && got.bytes > 1<<20 {
			t.Fatalf("%d bytes", got.bytes)
		}
	})
}
