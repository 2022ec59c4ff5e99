package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/pin/tftp/v3"

	"github.com/ingot-metal/ingot/api"
)

// fakeRack is the smallest server that a machine can live on: enough to prove the machine, nothing of the product.
type fakeRack struct {
	t      *testing.T
	dhcp   *net.UDPConn
	tftp   *net.UDPConn
	http   *httptest.Server
	blobs  map[string][]byte // by sha256
	kernel string
	initrd string
	root   string
	agent  []byte
	image  string

	mu        sync.Mutex
	purpose   string // enlist, task, local
	full      bool
	task      api.Task
	enlisted  url.Values
	signals   []string
	inventory []byte
	events    []string
	netboot   bool
	userData  string
	deployed  bool
	requests  []string
	fail      int // so many metadata calls answer 503
}

func blob(r *fakeRack, s string) string {
	sum := sha256.Sum256([]byte(s))
	h := hex.EncodeToString(sum[:])
	r.blobs[h] = []byte(s)
	return h
}

func newRack(t *testing.T) *fakeRack {
	t.Helper()
	r := &fakeRack{t: t, blobs: map[string][]byte{}, purpose: "enlist", netboot: true, userData: "#!/bin/sh\necho hello\n", agent: []byte("agent")}
	r.kernel, r.initrd = blob(r, "lab kernel"+strings.Repeat("k", 100_000)), blob(r, "lab initrd"+strings.Repeat("i", 50_000))
	r.root, r.image = blob(r, "lab root"+strings.Repeat("r", 70_000)), blob(r, "lab image"+strings.Repeat("m", 200_000))
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	r.dhcp, r.tftp = listen(), listen()
	r.http = httptest.NewServer(http.HandlerFunc(r.serveHTTP))
	var wg sync.WaitGroup
	wg.Add(1)
	go func() { defer wg.Done(); r.serveDHCP() }()
	ts := tftp.NewServer(func(name string, rf io.ReaderFrom) error {
		b, ok := r.file(strings.TrimLeft(name, "/"))
		if !ok {
			return fmt.Errorf("file not found: %s", name)
		}
		if o, ok := rf.(tftp.OutgoingTransfer); ok {
			o.SetSize(int64(len(b)))
		}
		_, err := rf.ReadFrom(bytes.NewReader(b))
		return err
	}, nil)
	ts.SetTimeout(300 * time.Millisecond)
	wg.Add(1)
	go func() { defer wg.Done(); ts.Serve(r.tftp) }()
	t.Cleanup(func() {
		r.http.Close()
		r.dhcp.Close()
		ts.Shutdown()
		wg.Wait()
	})
	return r
}

func (r *fakeRack) port() string {
	_, p, _ := net.SplitHostPort(r.http.Listener.Addr().String())
	return p
}

func (r *fakeRack) serveDHCP() {
	buf := make([]byte, 4096)
	for {
		n, from, err := r.dhcp.ReadFromUDP(buf)
		if err != nil {
			return
		}
		req, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			continue
		}
		kind := dhcpv4.MessageTypeOffer
		if req.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		rep, err := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(10, 77, 0, req.ClientHWAddr[5])),
			dhcpv4.WithServerIP(net.IPv4(127, 0, 0, 1)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(127, 0, 0, 1))), dhcpv4.WithLeaseTime(600))
		if err != nil {
			continue
		}
		base := r.http.URL
		switch a := req.Options.Get(dhcpv4.OptionClientSystemArchitectureType); {
		case string(req.Options.Get(dhcpv4.OptionUserClassInformation)) == "iPXE":
			rep.BootFileName = base + "/ipxe.cfg"
		case len(a) == 2 && a[1] == 7:
			rep.BootFileName = "bootx64.efi"
		case len(a) == 2 && a[1] == 16:
			rep.BootFileName = base + "/images/bootx64.efi"
			rep.UpdateOption(dhcpv4.OptClassIdentifier("HTTPClient"))
		case len(a) == 2:
			rep.BootFileName = "lpxelinux.0"
			rep.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(210), []byte(base+"/")))
		}
		r.dhcp.WriteToUDP(rep.ToBytes(), from)
	}
}

// file is what TFTP and HTTP serve by name.
func (r *fakeRack) file(name string) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name = strings.TrimPrefix(strings.ReplaceAll(name, "//", "/"), "images/")
	switch name {
	case "lpxelinux.0", "ldlinux.c32", "chain.c32", "libcom32.c32", "libutil.c32":
		return []byte("syslinux " + name), true
	case "bootx64.efi":
		return append([]byte("a shim"), make([]byte, 3000)...), true
	case "grubx64.efi":
		return []byte("GNU GRUB"), true
	case "ipxe.cfg":
		return []byte("#!ipxe\nchain http://127.0.0.1:" + r.port() + "/ipxe.cfg-${mac} || chain http://127.0.0.1:" + r.port() + "/ipxe.cfg-default-amd64\n"), true
	case "grub/grub.cfg":
		return []byte("configfile /grub/grub.cfg-${net_default_mac}\nconfigfile /grub/grub.cfg-default-${grub_cpu}\n"), true
	}
	if strings.HasSuffix(name, ".lst") {
		return nil, true
	}
	known := r.purpose != "enlist"
	images := "http://127.0.0.1:" + r.port() + "/images/"
	line := fmt.Sprintf("nomodeset ip=::::lab:BOOTIF:dhcp cc:{'datasource_list': ['MAAS']}end_cc cloud-config-url=http://127.0.0.1:%s/MAAS/metadata/%s", r.port(), map[bool]string{
		false: "latest/enlist-preseed/?op=get_enlist_preseed", true: "latest/by-id/abc123/?op=get_preseed"}[known])
	if r.full {
		line = "nomodeset root=squash:" + images + r.root + "/root ro " + line
	}
	local := r.purpose == "local" || !r.netboot
	switch {
	case strings.HasPrefix(name, "ipxe.cfg-default") && !known, strings.HasPrefix(name, "ipxe.cfg-52") && known:
		if local {
			return []byte("#!ipxe\nsanboot --no-describe --drive 0x80 || sanboot --no-describe --drive 0x81\n"), true
		}
		return []byte("#!ipxe\nkernel " + images + r.kernel + "/k/boot-kernel\nimgargs boot-kernel " + line + " BOOTIF=01-${mac}\ninitrd " + images + r.initrd + "/boot-initrd\nboot\n"), true
	case name == "grub/grub.cfg-default-x86_64" && !known, strings.HasPrefix(name, "grub/grub.cfg-52") && known:
		if local {
			return []byte("set default=\"0\"\nset timeout=0\nmenuentry 'Local' {\n search --set=root --file /efi/boot/bootx64.efi\n if [ $? ]; then true; fi\n chainloader /efi/boot/bootx64.efi\n boot\n search --set=root --file /efi/ubuntu/shimx64.efi\n exit 1\n}\n"), true
		}
		esc := strings.NewReplacer("{", "\\{", "}", "\\}").Replace(line)
		host := "(http,127.0.0.1:" + r.port() + ")/images/"
		return []byte("set default=\"0\"\nset timeout=0\nmenuentry 'Commission' {\n linux " + host + r.kernel + "/boot-kernel " + esc + " BOOTIF=01-${net_default_mac}\n initrd " + host + r.initrd + "/boot-initrd\n}\n"), true
	case name == "pxelinux.cfg/default" && !known, strings.HasPrefix(name, "pxelinux.cfg/01-52") && known:
		if local {
			return []byte("DEFAULT local\nLABEL local\n  SAY Booting local disk ...\n  KERNEL chain.c32\n  APPEND hd0\n"), true
		}
		return []byte("DEFAULT execute\nLABEL execute\n  KERNEL " + images + r.kernel + "/boot-kernel\n  INITRD " + images + r.initrd + "/boot-initrd\n  APPEND " + line + "\n  IPAPPEND 2\n"), true
	}
	return nil, false
}

func (r *fakeRack) serveHTTP(w http.ResponseWriter, q *http.Request) {
	if p, ok := strings.CutPrefix(q.URL.Path, "/MAAS/"); ok {
		r.maas(w, q, p)
		return
	}
	p := strings.TrimPrefix(q.URL.Path, "/")
	if p == "machine-resources/amd64/ingot-agent" {
		w.Header().Set("Content-Length", fmt.Sprint(len(r.agent)))
		w.Write(r.agent)
		return
	}
	b, ok := r.file(p)
	if !ok {
		if rest, is := strings.CutPrefix(p, "images/"); is {
			sum, _, _ := strings.Cut(rest, "/")
			b, ok = r.blobs[sum]
		}
	}
	if !ok {
		http.NotFound(w, q)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	if q.Method != http.MethodHead {
		w.Write(b)
	}
}

func (r *fakeRack) maas(w http.ResponseWriter, q *http.Request, p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q.ParseMultipartForm(1 << 20)
	what := q.Method + " " + p + " " + q.FormValue("op") + q.FormValue("status")
	r.requests = append(r.requests, what)
	if r.fail > 0 {
		r.fail--
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	auth := strings.Contains(q.Header.Get("Authorization"), `oauth_signature="%26ts"`)
	base := "http://127.0.0.1:" + r.port() + "/MAAS/metadata/"
	need := func() bool {
		if !auth {
			http.Error(w, "Authorization Error", http.StatusUnauthorized)
		}
		return auth
	}
	switch {
	case strings.HasPrefix(p, "metadata/latest/enlist-preseed"):
		fmt.Fprintf(w, "#cloud-config\ndatasource: {MAAS: {metadata_url: %q}}\n", base)
	case strings.HasPrefix(p, "metadata/latest/by-id/abc123"):
		fmt.Fprintf(w, "#cloud-config\ndatasource: {MAAS: {metadata_url: %q, consumer_key: ck, token_key: tk, token_secret: ts}}\nreporting: {maas: {type: webhook, endpoint: %q}}\n", base, base+"status/abc123")
	case p == "metadata/enlist/latest/ingot-task":
		json.NewEncoder(w).Encode(api.Task{Step: api.TaskEnlist, Then: "poweroff"})
	case p == "metadata/latest/ingot-task":
		if need() {
			json.NewEncoder(w).Encode(r.task)
		}
	case p == "api/2.0/machines/" && q.Method == http.MethodGet:
		fmt.Fprint(w, "false")
	case p == "api/2.0/machines/":
		q.ParseForm()
		r.enlisted, r.purpose = q.PostForm, "task"
		fmt.Fprint(w, `{"system_id": "abc123"}`)
	case p == "metadata/2012-03-01/" && q.FormValue("op") == "netboot_off":
		if need() {
			r.netboot = false
			fmt.Fprint(w, "OK")
		}
	case p == "metadata/2012-03-01/":
		if !need() {
			return
		}
		r.signals = append(r.signals, q.FormValue("status"))
		if f, _, err := q.FormFile(inventoryScript); err == nil {
			r.inventory, _ = io.ReadAll(f)
		}
		fmt.Fprint(w, "OK")
	case p == "metadata/2012-03-01/maas-scripts":
		if !need() {
			return
		}
		if r.inventory != nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		tw := tar.NewWriter(w)
		index := `{"1.0": {"commissioning_scripts": [{"name": "50-maas-01-commissioning", "path": "commissioning/50-maas-01-commissioning", "script_result_id": 7}]}}`
		tw.WriteHeader(&tar.Header{Name: "index.json", Size: int64(len(index)), Mode: 0o644})
		io.WriteString(tw, index)
		tw.WriteHeader(&tar.Header{Name: "commissioning/50-maas-01-commissioning", Mode: 0o755})
		tw.Close()
	case strings.HasPrefix(p, "metadata/status/"):
		var e struct{ Name, Event_type, Origin, Description string }
		json.NewDecoder(q.Body).Decode(&e)
		r.events = append(r.events, e.Name+" "+e.Event_type)
		w.WriteHeader(http.StatusNoContent)
	case strings.HasPrefix(p, "metadata/2012-03-01/meta-data/") && !auth && r.purpose == "enlist":
		fmt.Fprint(w, "maas-enlisting-node") // anonymous access is enlistment
	case p == "metadata/2012-03-01/user-data" && !auth && r.purpose == "enlist":
		fmt.Fprint(w, "#!/bin/sh\n")
	case strings.HasPrefix(p, "metadata/2012-03-01/meta-data/"):
		if !need() {
			return
		}
		switch strings.TrimPrefix(p, "metadata/2012-03-01/meta-data/") {
		case "instance-id":
			fmt.Fprint(w, "abc123")
		case "local-hostname":
			fmt.Fprint(w, "node.maas")
		case "public-keys":
			fmt.Fprint(w, "ssh-ed25519 AAAA me\n")
		default:
			http.NotFound(w, q)
		}
	case p == "metadata/2012-03-01/user-data":
		if !need() {
			return
		}
		if r.purpose == "local" || !r.netboot {
			r.deployed = true
		}
		fmt.Fprint(w, r.userData)
	default:
		http.NotFound(w, q)
	}
}

func (r *fakeRack) setTask(task api.Task, full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.task, r.full, r.signals, r.events = task, full, nil, nil
	r.purpose, r.netboot = "task", true
}

func (r *fakeRack) machine(t *testing.T, c Config) *Machine {
	t.Helper()
	c.DHCP = r.dhcp.LocalAddr().(*net.UDPAddr).AddrPort()
	c.TFTP = r.tftp.LocalAddr().(*net.UDPAddr).AddrPort()
	if c.Name == "" {
		c.Name = "lab-1"
	}
	if c.MAC == "" {
		c.MAC = "52:54:00:77:00:01"
	}
	if c.Retry == nil {
		c.Retry = []time.Duration{10 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond}
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			for _, s := range m.Trace() {
				t.Logf("%s %-6s %s", s.At.Format("05.000"), s.Kind, s.Text)
			}
		}
	})
	return m
}

func waitFor(t *testing.T, m *Machine, ok func(*Machine) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.Wait(ctx, ok); err != nil {
		t.Fatal(err)
	}
}

func isOff(m *Machine) bool { return m.State() == "off" && !m.On() }
