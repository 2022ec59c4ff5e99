package qemu_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ipmi "github.com/bougou/go-ipmi/pkg/client"
	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/lab/image"
	"github.com/ingot-metal/ingot/lab/qemu"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"golang.org/x/crypto/ssh"
)

// TestMain builds the images first: inside the namespace there is no network to fetch packages from.
func TestMain(m *testing.M) {
	if os.Getenv("INGOT_QEMU") != "" && !qemu.Inside() {
		dir, err := image.Build(context.Background(), image.Options{Install: true, Log: os.Stderr})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Setenv("INGOT_IMAGES", dir)
	}
	os.Exit(qemu.Main(m))
}

// needMachines skips where machines cannot run, or were not asked for: a run takes minutes.
func needMachines(t *testing.T) {
	t.Helper()
	if os.Getenv("INGOT_QEMU") == "" {
		t.Skip("set INGOT_QEMU=1 to run QEMU machines")
	}
	if !qemu.Inside() {
		t.Fatalf("QEMU machines need root and packages: %v", qemu.Missing())
	}
}

// site is the least of a server that a machine needs: DHCP, a boot script, images, the metadata service.
type site struct {
	t      *testing.T
	net    *qemu.Net
	dir    string
	images map[string]image.File // filetype by resource: "ingot/light boot-kernel"
	base   string
	pubkey string

	mu        sync.Mutex
	task      api.Task
	queue     []api.Task // what follows when task says "next"
	enlisted  map[string]string
	signals   []map[string]string
	inventory []byte
	events    []string
	failed    []string // events that say FAIL
	netboot   bool
	power     map[string]string
	full      bool                                              // boot the full environment
	more      func(w http.ResponseWriter, r *http.Request) bool // answers before the rest
	userData  int
}

func newSite(t *testing.T) *site {
	dir := os.Getenv("INGOT_IMAGES")
	m, err := image.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	n, err := qemu.NewNet(qemu.NetOptions{Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	s := &site{t: t, net: n, dir: dir, images: map[string]image.File{}, base: fmt.Sprintf("http://%s:5248", n.Addr()), netboot: true,
		task: api.Task{Step: api.TaskEnlist, Then: "poweroff"}}
	for _, f := range m.Files {
		if strings.HasPrefix(f.Architecture, "amd64/") {
			s.images[f.Name+" "+f.FileType] = f
		}
	}
	ln, err := net.Listen("tcp", n.Addr().String()+":5248")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	d, err := server4.NewServer(n.Bridge(), &net.UDPAddr{IP: net.IPv4zero, Port: 67}, s.dhcp)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = d.Serve() }()
	t.Cleanup(func() { _ = d.Close() })
	return s
}

func addrOf(mac net.HardwareAddr) net.IP { return net.IPv4(10, 77, 0, 50+mac[5]) }

func (s *site) dhcp(conn net.PacketConn, peer net.Addr, p *dhcpv4.DHCPv4) {
	typ := dhcpv4.MessageTypeOffer
	if p.MessageType() == dhcpv4.MessageTypeRequest {
		typ = dhcpv4.MessageTypeAck
	}
	me := net.IP(s.net.Addr().AsSlice())
	r, err := dhcpv4.NewReplyFromRequest(p, dhcpv4.WithMessageType(typ), dhcpv4.WithYourIP(addrOf(p.ClientHWAddr)), dhcpv4.WithServerIP(me),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(me)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(me), dhcpv4.WithDNS(me), dhcpv4.WithLeaseTime(600))
	if err != nil {
		return
	}
	if bytes.HasPrefix(p.Options.Get(dhcpv4.OptionUserClassInformation), []byte("iPXE")) || p.Options.Has(dhcpv4.GenericOptionCode(175)) {
		r.BootFileName = s.base + "/boot.ipxe"
		r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(175), []byte{0xb0, 1, 1}))
	}
	to := &net.UDPAddr{IP: net.IPv4bcast, Port: 68}
	_, _ = conn.WriteTo(r.ToBytes(), to)
}

func (s *site) path(resource string) string {
	f := s.images[resource]
	return "/images/" + f.SHA256 + "/" + f.File
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.more != nil && s.more(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := r.URL.Path
	auth := strings.Contains(r.Header.Get("Authorization"), `oauth_signature="%26ts"`)
	s.t.Logf("HTTP %s %s (signed: %v)", r.Method, r.URL.RequestURI(), auth)
	creds := "consumer_key: ck, token_key: tk, token_secret: ts"
	switch {
	case p == "/boot.ipxe":
		preseed := "/MAAS/metadata/latest/by-id/abc123/?op=get_preseed"
		if s.task.Step == api.TaskEnlist {
			preseed = "/MAAS/metadata/latest/enlist-preseed/?op=get_enlist_preseed"
		}
		if s.full {
			fmt.Fprintf(w, "#!ipxe\nkernel %s%s initrd=i nomodeset ro root=squash:%s%s ip=::::abc123:BOOTIF ip6=off overlayroot=tmpfs overlayroot_cfgdisk=disabled cc:{'datasource_list': ['MAAS']}end_cc cloud-config-url=%s%s apparmor=0 console=ttyS0 no_timer_check mitigations=off cryptomgr.notests BOOTIF=01-${net0/mac:hexhyp}\ninitrd --name i %s%s\nboot\n",
				s.base, s.path("ingot/full boot-kernel"), s.base, s.path("ingot/full squashfs"), s.base, preseed, s.base, s.path("ingot/full boot-initrd"))
			return
		}
		fmt.Fprintf(w, "#!ipxe\nkernel %s%s initrd=i nomodeset ro cc:{'datasource_list': ['MAAS']}end_cc cloud-config-url=%s%s console=ttyS0 no_timer_check mitigations=off cryptomgr.notests quiet BOOTIF=01-${net0/mac:hexhyp}\ninitrd --name i %s%s\nboot\n",
			s.base, s.path("ingot/light boot-kernel"), s.base, preseed, s.base, s.path("ingot/light boot-initrd"))
	case strings.HasPrefix(p, "/images/"):
		s.mu.Unlock()
		http.ServeFile(w, r, filepath.Join(s.dir, filepath.Base(p)))
		s.mu.Lock()
	case p == "/machine-resources/amd64/ingot-agent":
		s.mu.Unlock()
		http.ServeFile(w, r, filepath.Join(s.dir, s.images["ingot/agent agent"].File))
		s.mu.Lock()
	case r.URL.Query().Get("op") == "get_enlist_preseed":
		fmt.Fprintf(w, "#cloud-config\ndatasource: {MAAS: {metadata_url: \"%s/MAAS/metadata/enlist\"}}\n", s.base)
	case r.URL.Query().Get("op") == "get_preseed":
		fmt.Fprintf(w, "#cloud-config\ndatasource: {MAAS: {metadata_url: \"%s/MAAS/metadata/\", %s}}\nreporting: {maas: {type: webhook, endpoint: \"%s/MAAS/metadata/status/abc123\", %s}}\n", s.base, creds, s.base, creds)
	case r.URL.Query().Get("op") == "is_registered":
		_, _ = io.WriteString(w, "false")
	case p == "/MAAS/api/2.0/machines/":
		_ = r.ParseForm()
		s.enlisted = map[string]string{}
		for k := range r.Form {
			s.enlisted[k] = r.Form.Get(k)
		}
		_ = json.Unmarshal([]byte(r.Form.Get("power_parameters")), &s.power)
		s.task = api.Task{Step: api.TaskCommission, SystemID: "abc123", Then: "poweroff"}
		_, _ = io.WriteString(w, `{"system_id": "abc123"}`)
	case p == "/MAAS/metadata/enlist/latest/ingot-task":
		_ = json.NewEncoder(w).Encode(api.Task{Step: api.TaskEnlist, Then: "poweroff"})
	case !auth:
		w.WriteHeader(401)
	case p == "/MAAS/metadata/latest/ingot-task":
		_ = json.NewEncoder(w).Encode(s.task)
		if s.task.Then == "next" && len(s.queue) > 0 {
			s.task, s.queue = s.queue[0], s.queue[1:]
		}
	case strings.HasPrefix(p, "/MAAS/metadata/status/"):
		b, _ := io.ReadAll(r.Body)
		s.events = append(s.events, string(b))
		if bytes.Contains(b, []byte(`"result": "FAIL"`)) {
			s.failed = append(s.failed, string(b))
		}
		if len(b) < 2000 {
			s.t.Logf("EVENT %s", b)
		}
		w.WriteHeader(204)
	case p == "/MAAS/metadata/2012-03-01/" && r.Method == "POST":
		_ = r.ParseMultipartForm(8 << 20)
		m := map[string]string{}
		for k := range r.Form {
			m[k] = r.Form.Get(k)
		}
		if m["op"] == "netboot_off" {
			s.netboot = false
			break
		}
		if f, _, err := r.FormFile("50-maas-01-commissioning"); err == nil {
			s.inventory, _ = io.ReadAll(f)
		}
		if p := m["power_parameters"]; p != "" {
			_ = json.Unmarshal([]byte(p), &s.power)
			delete(m, "power_parameters")
		}
		s.signals = append(s.signals, m)
		s.t.Logf("SIGNAL %v", m)
		_, _ = io.WriteString(w, "OK")
	case strings.HasSuffix(p, "/meta-data/instance-id"):
		_, _ = io.WriteString(w, "abc123")
	case strings.HasSuffix(p, "/meta-data/local-hostname"):
		_, _ = io.WriteString(w, "deployed-node")
	case strings.HasSuffix(p, "/meta-data/public-keys"):
		_, _ = io.WriteString(w, s.pubkey)
	case strings.HasSuffix(p, "/maas-scripts"): // nothing but the inventory is wanted
		w.WriteHeader(http.StatusNoContent)
	case strings.HasSuffix(p, "/user-data"):
		s.userData++
		if s.full {
			fmt.Fprintf(w, "#!/bin/sh\nset -eu\nDIR=$(mktemp -d)\ncurl -fsS -o $DIR/ingot-agent %s/machine-resources/amd64/ingot-agent\nmount | grep -E '/run |/tmp' > /dev/console\nchmod 755 $DIR/ingot-agent\nexec $DIR/ingot-agent run --config-url '%s/MAAS/metadata/latest/by-id/abc123/?op=get_preseed' > /dev/console 2>&1\n", s.base, s.base)
			return
		}
		_, _ = io.WriteString(w, "#!/bin/sh\necho from-user-data > /etc/ingot-user-data\n")
	default:
		w.WriteHeader(404)
	}
}

// lastSignal is the status of the last signal that is not a heartbeat or a result.
func (s *site) lastSignal() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.signals) - 1; i >= 0; i-- {
		if s.signals[i]["status"] != "WORKING" {
			return s.signals[i]
		}
	}
	return nil
}

// boot switches the machine on and waits until it switches itself off with status OK.
func (s *site) boot(m *qemu.Machine, task api.Task, limit time.Duration) {
	s.t.Helper()
	s.mu.Lock()
	s.task, s.signals = task, nil
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	start := time.Now()
	if err := m.PowerOn(); err != nil {
		s.t.Fatal(err)
	}
	if err := m.WaitOff(ctx); err != nil {
		s.t.Fatalf("%v\n%s", err, m.Console().Tail(6000))
	}
	s.t.Logf("%s took %.1f s", task.Step, time.Since(start).Seconds())
	if l := s.lastSignal(); l["status"] != "OK" {
		s.t.Fatalf("%s: last signal %v\n%s", task.Step, l, m.Console().Tail(6000))
	}
}

// TestLife carries one machine through enlistment, commissioning, installation, its own boot and an erasure, on both firmwares.
func TestLife(t *testing.T) {
	needMachines(t)
	for _, fw := range []qemu.Firmware{qemu.BIOS, qemu.UEFIIPXE} {
		t.Run(string(fw), func(t *testing.T) { life(t, fw) })
	}
}

func life(t *testing.T, fw qemu.Firmware) {
	s := newSite(t)
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	s.pubkey = string(ssh.MarshalAuthorizedKey(sshPub))
	if block, err := ssh.MarshalPrivateKey(key, ""); err == nil {
		if p := os.Getenv("INGOT_QEMU_KEY"); p != "" {
			_ = os.WriteFile(p, pem.EncodeToMemory(block), 0o600)
		}
	}
	bmcAddr := netip.MustParseAddr("10.77.0.201")
	m, err := s.net.Machine(qemu.Config{Firmware: fw, BMC: bmcAddr, CPUs: 2, Disks: []int64{8 << 30, 1 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Repeat([]byte("this disk is nobody's business\n"), 1<<15)
	if err := os.WriteFile(m.DiskPath(1)+".want", other, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(m.DiskPath(1), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(other, 0); err != nil {
		t.Fatal(err)
	}
	f.Close()

	// enlist and commission in one boot
	s.boot(m, api.Task{Step: api.TaskEnlist, Then: "poweroff"}, 3*time.Minute)
	if s.enlisted["mac_addresses"] != m.MAC || s.enlisted["power_type"] != "ipmi" || s.enlisted["commission"] != "True" {
		t.Fatalf("enlisted with %v", s.enlisted)
	}
	if s.power["power_address"] != bmcAddr.String() || s.power["power_user"] != "maas" {
		t.Fatalf("power parameters: address %q, user %q", s.power["power_address"], s.power["power_user"])
	}
	var inv struct {
		Environment struct{ Firmware string }
		Resources   struct {
			Storage struct {
				Disks []struct {
					ID, Serial string
					Size       int64
				}
			}
			System struct{ UUID, Type string }
		}
	}
	if err := json.Unmarshal(s.inventory, &inv); err != nil {
		t.Fatal(err)
	}
	if d := inv.Resources.Storage.Disks; len(d) != 2 || d[0].Serial != m.DiskSerial(0) || d[0].Size != 8<<30 || inv.Resources.System.UUID != m.UUID {
		t.Fatalf("inventory: %+v", inv)
	}
	firmware := "bios"
	if fw != qemu.BIOS {
		firmware = "uefi"
	}
	if inv.Environment.Firmware != firmware {
		t.Fatalf("firmware %q", inv.Environment.Firmware)
	}
	checkBMC(t, bmcAddr, s.power)

	img := s.images["custom/debian-12 root-tgz"]
	root, esp := "11111111-2222-4333-8444-555555555555", "ABCD-1234"
	disk := api.DiskID{Name: "vda", Serial: m.DiskSerial(0), Size: 8 << 30}
	items := []api.StorageItem{{ID: "vda", Type: api.StorageDisk, Disk: &disk, PTable: "gpt", Boot: true},
		{ID: "vda-part1", Type: api.StoragePartition, Device: "vda", Number: 1, Offset: 4 << 20, Size: 512 << 20, Flag: "boot", UUID: "aaaaaaaa-0000-4000-8000-000000000001"},
		{ID: "vda-part2", Type: api.StoragePartition, Device: "vda", Number: 2, Size: 7 << 30, UUID: "aaaaaaaa-0000-4000-8000-000000000002"},
		{ID: "vda-part2_format", Type: api.StorageFormat, Volume: "vda-part2", FSType: "ext4", UUID: root, Label: "root"},
		{ID: "vda-part2_mount", Type: api.StorageMount, Device: "vda-part2_format", Path: "/", Options: "errors=remount-ro"}}
	if fw == qemu.BIOS {
		items[1].Flag, items[1].Size = "bios_grub", 1<<20
	} else {
		items = append(items, api.StorageItem{ID: "vda-part1_format", Type: api.StorageFormat, Volume: "vda-part1", FSType: "vfat", UUID: esp, Label: "efi"},
			api.StorageItem{ID: "vda-part1_mount", Type: api.StorageMount, Device: "vda-part1_format", Path: "/boot/efi"})
	}
	seed := fmt.Sprintf("datasource:\n  MAAS: {metadata_url: \"%s/MAAS/metadata/\", consumer_key: ck, token_key: tk, token_secret: ts}\n", s.base)
	ip := addrOf(mustMAC(m.MAC)).String()
	s.boot(m, api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: "poweroff", Install: &api.InstallPlan{
		Firmware: firmware, Storage: items, Hostname: "deployed-node",
		Image: api.ImageSource{Path: strings.TrimPrefix(s.path("custom/debian-12 root-tgz"), "/images/"), SHA256: img.SHA256, Size: img.Size, Type: "root-tgz"},
		Network: map[string]any{"version": 2, "ethernets": map[string]any{"ens3": map[string]any{"match": map[string]any{"macaddress": m.MAC}, "set-name": "ens3",
			"addresses": []any{ip + "/24"}, "gateway4": "10.77.0.1", "nameservers": map[string]any{"addresses": []any{"10.77.0.1"}}}}},
		Seed:       []api.SeedFile{{Path: "/etc/cloud/cloud.cfg.d/90_dpkg_local_cloud_config.cfg", Content: seed, Mode: 0o600}},
		KernelOpts: "console=ttyS0 no_timer_check mitigations=off cryptomgr.notests",
	}}, 8*time.Minute)
	if s.netboot {
		t.Fatal("the machine did not say that it boots from its disk")
	}
	got := make([]byte, len(other))
	if f, err = os.Open(m.DiskPath(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(f, got); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if !bytes.Equal(got, other) {
		t.Fatal("the installation touched a disk that its plan does not name")
	}

	// its own boot: the BMC is told to start from the disk
	start := time.Now()
	bootFromDisk(t, bmcAddr, s.power)
	out := waitSSH(t, m, ip, key, "cat /etc/ingot-user-data; hostname; findmnt -no SOURCE /; sudo id -u; sudo systemctl --no-block poweroff", 8*time.Minute)
	t.Logf("ssh after %.1f s: %q", time.Since(start).Seconds(), out)
	if !strings.Contains(out, "from-user-data") || !strings.Contains(out, "deployed-node") || !strings.Contains(out, "/dev/vda2") {
		t.Fatalf("the deployed system says %q", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := m.WaitOff(ctx); err != nil {
		t.Fatal(err)
	}

	s.boot(m, api.Task{Step: api.TaskErase, SystemID: "abc123", Then: "poweroff", Erase: &api.ErasePlan{Mode: "quick", Disks: []api.DiskID{disk}}}, 2*time.Minute)
	if b, err := exec.Command("blkid", "-p", m.DiskPath(0)).CombinedOutput(); err == nil {
		t.Fatalf("after erasing, blkid finds %s", b)
	}
}

// TestFullEnvironment commissions in the squashfs with cloud-init, which fetches the agent and switches the machine off.
func TestFullEnvironment(t *testing.T) {
	needMachines(t)
	s := newSite(t)
	s.full = true
	m, err := s.net.Machine(qemu.Config{BMC: netip.MustParseAddr("10.77.0.202"), CPUs: 2, MemoryMB: 1536})
	if err != nil {
		t.Fatal(err)
	}
	s.boot(m, api.Task{Step: api.TaskCommission, SystemID: "abc123", Then: "poweroff"}, 6*time.Minute)
	if !bytes.Contains(s.inventory, []byte(m.DiskSerial(0))) || s.power["power_address"] != "10.77.0.202" {
		t.Fatalf("inventory %s, power %v", s.inventory, s.power["power_address"])
	}
	if len(s.failed) > 0 {
		t.Fatalf("failures were reported: %s", s.failed)
	}
}

func mustMAC(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func bmcClient(t *testing.T, addr netip.Addr, user, pass string, suite int) *ipmi.Client {
	t.Helper()
	c, err := ipmi.NewClient(addr.String(), 623, user, pass)
	if err != nil {
		t.Fatal(err)
	}
	c.WithInterface(ipmi.InterfaceLanplus).WithTimeout(2 * time.Second)
	if suite == 17 {
		c.WithCipherSuiteID(17)
	} else {
		c.WithCipherSuiteID(3)
	}
	if err := c.Connect(t.Context()); err != nil {
		t.Fatalf("BMC, user %s, suite %d: %v", user, suite, err)
	}
	return c
}

// checkBMC logs in over the LAN with what the agent made in band.
func checkBMC(t *testing.T, addr netip.Addr, p map[string]string) {
	t.Helper()
	for _, suite := range []int{3, 17} {
		c := bmcClient(t, addr, p["power_user"], p["power_pass"], suite)
		st, err := c.GetChassisStatus(t.Context())
		if err != nil || st.PowerIsOn {
			t.Fatalf("chassis status: %v, %+v", err, st)
		}
		_ = c.Close(t.Context())
	}
}

func bootFromDisk(t *testing.T, addr netip.Addr, p map[string]string) {
	t.Helper()
	for _, a := range [][]string{{"chassis", "bootdev", "disk"}, {"chassis", "power", "on"}} {
		c := exec.Command("ipmitool", append([]string{"-I", "lanplus", "-C", "3", "-H", addr.String(), "-U", p["power_user"], "-P", p["power_pass"]}, a...)...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("ipmitool %v: %v: %s", a, err, out)
		}
	}
}

func waitSSH(t *testing.T, m *qemu.Machine, ip string, key ed25519.PrivateKey, command string, limit time.Duration) string {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ClientConfig{User: "debian", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second}
	var last error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Second) {
		c, err := ssh.Dial("tcp", ip+":22", cfg)
		if err != nil {
			last = err
			continue
		}
		defer c.Close()
		probe, err := c.NewSession()
		if err != nil {
			last = err
			continue
		}
		// user-data runs in cloud-init's last stage
		if err := probe.Run("test -e /etc/ingot-user-data"); err != nil {
			last = err
			c.Close()
			continue
		}
		sess, err := c.NewSession()
		if err != nil {
			last = err
			continue
		}
		out, _ := sess.CombinedOutput(command)
		return string(out)
	}
	t.Fatalf("no ssh: %v\n%s", last, m.Console().Tail(6000))
	return ""
}
