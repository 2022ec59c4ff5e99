package qemu_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/lab/qemu"
	"golang.org/x/crypto/ssh"
)

// The image tests take the disk of an installed machine as a whole-disk image for another disk, and put a system into memory, erase disks
// and enter rescue mode on the same machine.

// userKey makes a key of the machine's user, and the site serve it.
func (s *site) userKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.pubkey = string(ssh.MarshalAuthorizedKey(k))
	s.mu.Unlock()
	return key
}

// serveImage serves a file of this test as an image.
func (s *site) serveImage(t *testing.T, file, typ string) api.ImageSource {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		t.Fatal(err)
	}
	src := api.ImageSource{Path: "own/" + filepath.Base(file), SHA256: hex.EncodeToString(h.Sum(nil)), Size: n, Type: typ}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/images/"+src.Path {
			return false
		}
		http.ServeFile(w, r, file)
		return true
	}
	return src
}

// diskSum is the digest of a machine's disk, holes and all.
func diskSum(t *testing.T, m *qemu.Machine, i int) string {
	t.Helper()
	f, err := os.Open(m.DiskPath(i))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// soil fills the beginning of a disk with what an earlier user left.
func soil(t *testing.T, m *qemu.Machine, i int, n int64) {
	t.Helper()
	f, err := os.OpenFile(m.DiskPath(i), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := bytes.Repeat([]byte("an earlier user's secret\n\x00\x01\x02\x03\x04\x05\x06"), 1<<15)
	for at := int64(0); at < n; at += int64(len(b)) {
		if _, err := f.WriteAt(b[:min(int64(len(b)), n-at)], at); err != nil {
			t.Fatal(err)
		}
	}
}

// notZero finds the first byte of a disk that is not zero; -1: there is none.
func notZero(t *testing.T, m *qemu.Machine, i int) int64 {
	t.Helper()
	f, err := os.Open(m.DiskPath(i))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, none := make([]byte, 4<<20), make([]byte, 4<<20)
	for at := int64(0); ; {
		n, err := f.Read(b)
		if !bytes.Equal(b[:n], none[:n]) {
			return at + int64(bytes.IndexFunc(b[:n], func(r rune) bool { return r != 0 }))
		}
		if at += int64(n); err == io.EOF {
			return -1
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// run runs a command over ssh, when the machine answers.
func sshRun(t *testing.T, m *qemu.Machine, user string, key ed25519.PrivateKey, command string, limit time.Duration) string {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second}
	var last error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Second) {
		c, err := ssh.Dial("tcp", addrOf(mustMAC(m.MAC)).String()+":22", cfg)
		if err != nil {
			last = err
			continue
		}
		defer c.Close()
		s, err := c.NewSession()
		if err != nil {
			last = err
			continue
		}
		if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
			t.Fatal(err)
		}
		out, err := s.CombinedOutput(command)
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		return strings.ReplaceAll(string(out), "\r", "")
	}
	t.Fatalf("no ssh: %v\n%s", last, m.Console().Tail(6000))
	return ""
}

// imagedReport is the report of a system that came as the image of a disk.
const imagedReport = `#!/bin/sh
exec >/run/report 2>&1
part() { echo "=== $1"; shift; "$@"; }
part lsblk lsblk -J -b -o NAME,TYPE,SIZE,FSTYPE,MOUNTPOINT
part host hostname
part own cat /etc/own-seed
part net sh -c 'ls /etc/systemd/network /etc/netplan; cat /etc/systemd/network/*'
part id cat /etc/machine-id
part check e2fsck -fn $(findmnt -no SOURCE /)
part table sfdisk --verify $(lsblk -no PKNAME -p $(findmnt -no SOURCE /))
echo "=== end"
dmesg -n 1
printf '\n=== BEGIN %s END ===\n' "$(base64 -w0 /run/report)" > /dev/ttyS0
systemctl poweroff
`

// installed makes a system on the machine's first disk, to be taken as an image.
func installed(s *site, m *qemu.Machine, firmware string) {
	p := &storagePlan{}
	d := p.disk(m, 0, "gpt", true)
	if firmware == "uefi" {
		p.fs(p.part(d, 1, 128*mib, "boot"), "vfat", "efi", "/boot/efi")
	} else {
		p.part(d, 1, mib, "bios_grub")
	}
	p.fs(p.part(d, 2, m.Disks[0]-160*mib, ""), "ext4", "root", "/")
	s.boot(m, s.installTask(firmware, p, "poweroff"), 10*time.Minute)
}

func (s *site) network(m *qemu.Machine) map[string]any {
	return map[string]any{"version": 2, "ethernets": map[string]any{"ens3": map[string]any{"match": map[string]any{"macaddress": m.MAC}, "set-name": "ens3",
		"addresses": []any{addrOf(mustMAC(m.MAC)).String() + "/24"}, "gateway4": "10.77.0.1", "nameservers": map[string]any{"addresses": []any{"10.77.0.1"}}}}}
}

func (s *site) imageTask(m *qemu.Machine, disk int, firmware string, src api.ImageSource, then string) api.Task {
	name := "vd" + string(rune('a'+disk))
	seed := append([]api.SeedFile{}, reportSeed...)
	for i := range seed {
		if seed[i].Path == "/usr/local/sbin/report" {
			seed[i].Content = imagedReport
		}
	}
	seed = append(seed, api.SeedFile{Path: "/etc/own-seed", Content: "of this machine\n", Mode: 0o600})
	return api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: then, Install: &api.InstallPlan{Firmware: firmware, Hostname: "imaged", OSystem: "custom", Series: "whole",
		Storage: []api.StorageItem{{ID: name, Type: api.StorageDisk, Boot: true, Disk: &api.DiskID{Name: name, Serial: m.DiskSerial(disk), Size: m.Disks[disk]}}},
		Image:   src, Seed: seed, Network: s.network(m)}}
}

func checkImaged(t *testing.T, m *qemu.Machine, rep map[string]string) {
	t.Helper()
	for part, want := range map[string]string{"host": "imaged", "own": "of this machine", "net": m.MAC, "check": "files", "table": "No errors detected", "lsblk": fmt.Sprint(m.Disks[1])} {
		if !strings.Contains(rep[part], want) {
			t.Errorf("%s: %q, want %q in it", part, rep[part], want)
		}
	}
	if len(strings.TrimSpace(rep["id"])) != 32 {
		t.Errorf("machine-id %q", rep["id"])
	}
	if t.Failed() {
		t.Logf("%q", rep)
	}
}

// pack compresses a machine's disk.
func pack(t *testing.T, m *qemu.Machine, i int, to string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), to)
	if b, err := exec.Command("zstd", "-q", "-1", "-T0", m.DiskPath(i), "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("zstd: %v %s", err, b)
	}
	return out
}

// TestImagesBIOS: a whole-disk image, rescue mode in the same boot, a system in memory, and disks that erase themselves or are erased.
func TestImagesBIOS(t *testing.T) {
	needMachines(t)
	s := newSite(t)
	key := s.userKey(t)
	m, err := s.net.Machine(qemu.Config{CPUs: 2, MemoryMB: 2560, Disks: []int64{3 * gib, 4 * gib, 256 * mib}, DiskTypes: []string{"", "", "nvme"}})
	if err != nil {
		t.Fatal(err)
	}
	installed(s, m, "bios")
	soil(t, m, 1, 2*gib)
	soil(t, m, 2, 256*mib)
	src := s.serveImage(t, pack(t, m, 0, "disk.zst"), "root-dd.zst")
	first, nvme := diskSum(t, m, 0), diskSum(t, m, 2)

	// the image onto the second disk, then rescue mode, in one boot
	s.mu.Lock()
	s.queue = []api.Task{{Step: api.TaskRescue, SystemID: "abc123", Then: "stay"}}
	s.task, s.signals = s.imageTask(m, 1, "bios", src, "next"), nil
	s.mu.Unlock()
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	out := sshRun(t, m, "ubuntu", key, "id -u; tty; lsblk -n -o NAME | head -20; mkdir -p /mnt; mount -o ro /dev/vdb2 /mnt && cat /mnt/etc/own-seed /mnt/etc/hostname; umount /mnt; echo done", 8*time.Minute)
	for _, want := range []string{"0\n/dev/pts/", "nvme0n1", "of this machine\nimaged\n", "done"} {
		if !strings.Contains(out, want) {
			t.Errorf("rescue mode says %q, want %q in it", out, want)
		}
	}
	m.PowerOff()
	s.mu.Lock()
	signals, failed := s.signals, s.failed
	s.mu.Unlock()
	if len(failed) > 0 || len(signals) < 2 || signals[len(signals)-1]["status"] != "OK" && signals[len(signals)-1]["status"] != "WORKING" {
		t.Fatalf("signals %v; failures: %s", signals, failed)
	}
	// the image has 3 GiB and is mostly holes, and the disk was soiled within: nothing of it may show through
	if b, err := exec.Command("grep", "-c", "-a", "-m1", "an earlier user's secret", m.DiskPath(1)).Output(); err == nil || strings.TrimSpace(string(b)) != "0" {
		t.Errorf("what was on the disk shows through the image: %s, %v", b, err)
	}
	if diskSum(t, m, 0) != first || diskSum(t, m, 2) != nvme {
		t.Fatal("a disk that the plan does not name was written")
	}

	// a system in memory: no disk may change
	second := diskSum(t, m, 1)
	img := s.images["custom/debian-12-squashfs squashfs"]
	seed := fmt.Sprintf("datasource:\n  MAAS: {metadata_url: \"%s/MAAS/metadata/\", consumer_key: ck, token_key: tk, token_secret: ts}\n", s.base)
	s.mu.Lock()
	s.task, s.signals, s.userData = api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: "reboot", Install: &api.InstallPlan{Firmware: "bios", Memory: true, Hostname: "deployed-node", OSystem: "custom",
		Image:   api.ImageSource{Path: strings.TrimPrefix(s.path("custom/debian-12-squashfs squashfs"), "/images/"), SHA256: img.SHA256, Size: img.Size, Type: "squashfs"},
		Network: s.network(m), Seed: []api.SeedFile{{Path: "/etc/cloud/cloud.cfg.d/90_dpkg_local_cloud_config.cfg", Content: seed, Mode: 0o600}}}}, nil, 0
	s.mu.Unlock()
	s.mu.Lock()
	s.netboot = true
	s.mu.Unlock()
	start := time.Now()
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	out = waitSSH(t, m, addrOf(mustMAC(m.MAC)).String(), key, "cat /etc/ingot-user-data; hostname; findmnt -no FSTYPE /; cat /proc/1/comm; lsblk -n -o MOUNTPOINT | sort -u; sudo modprobe dummy && echo module; sudo systemctl --no-block poweroff", 12*time.Minute)
	t.Logf("a system in memory after %.0f s: %q", time.Since(start).Seconds(), out)
	for _, want := range []string{"from-user-data", "deployed-node", "tmpfs", "systemd", "module"} {
		if !strings.Contains(out, want) {
			t.Errorf("the system in memory says %q, want %q in it", out, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := m.WaitOff(ctx); err != nil {
		t.Fatal(err)
	}
	if diskSum(t, m, 0) != first || diskSum(t, m, 1) != second || diskSum(t, m, 2) != nvme {
		t.Fatal("a disk was written, and the system was for memory")
	}
	s.mu.Lock()
	if !s.netboot || s.userData == 0 {
		t.Errorf("boots from the network: %v; user-data was read %d times", s.netboot, s.userData)
	}
	s.events = nil
	s.mu.Unlock()

	// the first disk and the drive that can do so itself, at the same time; the image's disk stays
	s.boot(m, api.Task{Step: api.TaskErase, SystemID: "abc123", Then: "poweroff", Erase: &api.ErasePlan{Mode: "secure",
		Disks: []api.DiskID{{Name: "vda", Serial: m.DiskSerial(0), Size: m.Disks[0]}, {Name: "nvme0n1", Serial: m.DiskSerial(2), Size: m.Disks[2]}}}}, 10*time.Minute)
	for _, i := range []int{0, 2} {
		if at := notZero(t, m, i); at >= 0 {
			t.Errorf("disk %d: byte %d is left after erasing", i, at)
		}
	}
	if diskSum(t, m, 1) != second {
		t.Error("a disk that was not to be erased was written")
	}
	s.mu.Lock()
	events := strings.Join(s.events, "\n")
	s.mu.Unlock()
	for _, want := range []string{"Disk nvme0n1: NVMe format", "Disk vda: overwritten with zeros instead of secure erase"} {
		if !strings.Contains(events, want) {
			t.Errorf("no event says %q", want)
		}
	}

	m.PullDisk(0)
	m.PullDisk(2)
	checkImaged(t, m, report(t, m, 5*time.Minute))
}

// TestImagesUEFI: a whole-disk image whose EFI system partition has only the distribution's own loader. An image for the other firmware is
// refused while the disk is as it was.
func TestImagesUEFI(t *testing.T) {
	needMachines(t)
	s := newSite(t)
	m, err := s.net.Machine(qemu.Config{Firmware: qemu.UEFIIPXE, CPUs: 2, MemoryMB: 1280, Disks: []int64{3 * gib, 4 * gib}})
	if err != nil {
		t.Fatal(err)
	}
	installed(s, m, "uefi")
	if b, err := exec.Command("mdeltree", "-i", m.DiskPath(0)+"@@4M", "::/EFI/BOOT").CombinedOutput(); err != nil {
		t.Fatalf("mtools: %v %s", err, b)
	}
	soil(t, m, 1, gib)
	src := s.serveImage(t, pack(t, m, 0, "disk.zst"), "root-dd.zst")
	s.boot(m, s.imageTask(m, 1, "uefi", src, "poweroff"), 8*time.Minute)
	m.PullDisk(0)
	checkImaged(t, m, report(t, m, 6*time.Minute))
}
