package loaders

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	write := func(p, s string) {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(root, "usr/lib/PXELINUX/lpxelinux.0"), "package")
	write(filepath.Join(root, "usr/lib/ipxe/ipxe.efi"), "package")
	write(filepath.Join(root, "usr/lib/grub/x86_64-efi/http.mod"), "module")
	write(filepath.Join(root, "usr/lib/shim/shimx64.efi.signed"), "")
	write(filepath.Join(dir, "ipxe.efi"), "operator")
	s := Find(Options{Dir: dir, Root: root})
	if got := strings.Join(s.Names(), " "); got != "ipxe.efi lpxelinux.0" {
		t.Errorf("found %s", got)
	}
	for p, want := range map[string]string{"lpxelinux.0": "package", "/a/b/ipxe.efi": "operator", `\ipxe.efi`: "operator", "grub/x86_64-efi/http.mod": "module"} {
		f, err := s.Open(p)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		b, _ := io.ReadAll(f)
		f.Close()
		if string(b) != want {
			t.Errorf("%s is %q, want %q", p, b, want)
		}
	}
	_, err := s.Open("bootx64.efi")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "shim-signed") {
		t.Errorf("a missing loader: %v", err)
	}
	for _, p := range []string{"", "x", "../../etc/passwd", "grub/x86_64-efi/../x.mod", "grub/x86_64-efi/none.mod", "grub/i386-pc/http.mod", "x86_64-efi/HTTP.MOD"} {
		if _, err := s.Open(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", p, err)
		}
	}
	if m := s.Missing("amd64"); len(m) != 8 {
		t.Errorf("missing %v", m)
	}
	var none *Set
	if none.Has("ipxe.efi") {
		t.Error("no set has files")
	}
}
