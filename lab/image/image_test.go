package image

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestManifestChecks(t *testing.T) {
	dir := t.TempDir()
	write := func(m Manifest) {
		t.Helper()
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ManifestName), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "vmlinuz"), []byte("kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	good := File{Name: "ingot/light", Architecture: "amd64/generic", FileType: "boot-kernel", File: "vmlinuz", Size: 6}
	write(Manifest{1, []File{good}})
	if m, err := ReadManifest(dir); err != nil || len(m.Files) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	for name, c := range map[string]func(*Manifest){
		"version": func(m *Manifest) { m.Version = 2 },
		"size":    func(m *Manifest) { m.Files[0].Size = 7 },
		"climbs":  func(m *Manifest) { m.Files[0].File = "../vmlinuz" },
		"missing": func(m *Manifest) { m.Files[0].File = "initrd" },
	} {
		m := Manifest{1, []File{good}}
		c(&m)
		write(m)
		if _, err := ReadManifest(dir); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// tree is a small Debian tree: one kernel with a few modules.
func tree(t *testing.T) string {
	root := t.TempDir()
	for p, c := range map[string]string{
		"lib/modules/6.1/modules.dep":   "kernel/fs/ext4.ko: kernel/lib/crc16.ko kernel/fs/jbd2.ko\nkernel/fs/jbd2.ko:\nkernel/lib/crc16.ko:\nkernel/net/virtio_net.ko: kernel/drivers/virtio.ko\nkernel/drivers/virtio.ko:\nkernel/sound/snd.ko:\n",
		"lib/modules/6.1/modules.alias": "alias fs-ext4 ext4\nalias virtio:d00000001v* virtio_net\nalias pci:* snd\n",
	} {
		p = filepath.Join(root, p)
		_ = os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(c), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []string{"fs/ext4", "fs/jbd2", "lib/crc16", "net/virtio_net", "drivers/virtio", "sound/snd"} {
		p := filepath.Join(root, "lib/modules/6.1/kernel", m+".ko")
		_ = os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(m), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLightInitramfs(t *testing.T) {
	light := filepath.Join(t.TempDir(), "light")
	if err := collectModules(tree(t), filepath.Join(light, "lib/modules/ingot")); err != nil {
		t.Fatal(err)
	}
	dep, _ := os.ReadFile(filepath.Join(light, "lib/modules/ingot/modules.dep"))
	if want := "virtio.ko:\next4.ko: crc16.ko jbd2.ko\njbd2.ko:\ncrc16.ko:\nvirtio_net.ko: virtio.ko\n"; sorted(string(dep)) != sorted(want) {
		t.Errorf("modules.dep:\n%s", dep)
	}
	alias, _ := os.ReadFile(filepath.Join(light, "lib/modules/ingot/modules.alias"))
	if string(alias) != "alias fs-ext4 ext4\nalias virtio:d00000001v* virtio_net\n" {
		t.Errorf("modules.alias:\n%s", alias)
	}
	agent := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(agent, []byte("the agent"), 0o755); err != nil {
		t.Fatal(err)
	}
	var packs [2][]byte
	for i := range packs {
		out := filepath.Join(t.TempDir(), "initrd")
		if err := packLight(light, agent, agent, out); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		packs[i] = b
	}
	if !bytes.Equal(packs[0], packs[1]) {
		t.Error("the same files give different initramfs")
	}
	z, err := zstd.NewReader(bytes.NewReader(packs[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not installed")
	}
	c := exec.Command("cpio", "-itv", "--quiet")
	c.Stdin = z
	list, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, list)
	}
	for _, want := range []string{"init\n", "bin/busybox\n", "bin/sh -> busybox\n", "lib/modules/ingot/ext4.ko\n", "5,   1", "lib/modules/ingot/list\n"} {
		if !strings.Contains(string(list), want) {
			t.Errorf("the initramfs lacks %q:\n%s", want, list)
		}
	}
}

func sorted(s string) string {
	l := strings.Split(s, "\n")
	for i := range l {
		for j := i + 1; j < len(l); j++ {
			if l[j] < l[i] {
				l[i], l[j] = l[j], l[i]
			}
		}
	}
	return strings.Join(l, "\n")
}

func TestHash(t *testing.T) {
	if hash("a", "bc") == hash("ab", "c") || hash("a") == hash("a", "") || hash("x") != hash("x") {
		t.Error("parts run into each other")
	}
}
