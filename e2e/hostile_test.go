package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/ingot-metal/ingot/lab"
)

// header signs a request in PLAINTEXT, with parts replaced.
func header(key string, change map[string]string) string {
	p := strings.Split(key, ":")
	f := map[string]string{
		"oauth_version": "1.0", "oauth_signature_method": "PLAINTEXT", "oauth_consumer_key": p[0], "oauth_token": p[1], "oauth_signature": "%26" + p[2],
		"oauth_nonce": fmt.Sprint(rand.Uint64()), "oauth_timestamp": fmt.Sprint(time.Now().Unix()),
	}
	var parts []string
	for k, v := range change {
		f[k] = v
	}
	for k, v := range f {
		if v != "" {
			parts = append(parts, k+`="`+v+`"`)
		}
	}
	return "OAuth " + strings.Join(parts, ", ")
}

func (s *site) send(method, path, auth, contentType string, body io.Reader) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.ports.http+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestHostileHTTP(t *testing.T) {
	s := newSite(t, siteOptions{machines: 1, firmwares: []lab.Firmware{lab.BIOSiPXE}})
	id := s.enlist(s.lab.Machines[0])
	s.commission(id)
	before := s.reach(id, "Ready", time.Minute)
	poll(t, time.Minute, "the power state is known", func() (bool, string) { before = s.read(id); return before.PowerState == "off", state(before) })
	const form, machines = "application/x-www-form-urlencoded", "/MAAS/api/2.0/machines/"
	good := func() string { return header(s.key, nil) }
	plain := s.plainUser("mallory")
	twice := header(s.key, map[string]string{"oauth_nonce": "once"})
	if code, text := s.send("GET", machines, twice, "", nil); code != 200 {
		t.Fatalf("the first use of a nonce: %d %s", code, text)
	}
	one := machines + id + "/"
	for _, c := range []struct {
		name, method, path, auth, contentType, body string
		status                                      int
		text                                        string
	}{
		{"unknown op", "POST", machines + "?op=explode", good(), "", "", 400, "Unrecognised signature: method=POST op=explode"},
		{"no credentials", "GET", "/MAAS/api/2.0/users/", "", "", "", 401, ""},
		{"not OAuth", "GET", "/MAAS/api/2.0/users/", "Basic YTpi", "", "", 401, ""},
		{"unknown consumer", "GET", machines, header(s.key, map[string]string{"oauth_consumer_key": "x"}), "", "", 401, "Invalid API key"},
		{"unknown token", "GET", machines, header(s.key, map[string]string{"oauth_token": "x"}), "", "", 401, "Invalid access token: x"},
		{"wrong secret", "GET", machines, header(s.key, map[string]string{"oauth_signature": "%26x"}), "", "", 401, "Invalid signature"},
		{"nonce again", "GET", machines, twice, "", "", 401, "Nonce already used"},
		{"old timestamp", "GET", machines, header(s.key, map[string]string{"oauth_timestamp": "1000000000"}), "", "", 401, "Expired timestamp"},
		{"timestamp is no number", "GET", machines, header(s.key, map[string]string{"oauth_timestamp": "now"}), "", "", 400, ""},
		{"missing nonce", "GET", "/MAAS/api/2.0/users/", header(s.key, map[string]string{"oauth_nonce": ""}), "", "", 401, ""},
		{"header of garbage", "GET", "/MAAS/api/2.0/users/", "OAuth \xff=,,,\"=;oauth_token", "", "", 401, ""},
		{"missing parameter", "POST", "/MAAS/api/2.0/zones/", good(), form, "", 400, ""},
		{"malformed number", "POST", machines + "?op=allocate", good(), form, "cpu_count=many", 400, ""},
		{"malformed key", "POST", machines + "?op=allocate&dry_run=true", good(), form, "tags[0=a&cpu_count=", 0, ""},
		{"malformed multipart", "POST", machines + "?op=allocate&dry_run=true", good(), "multipart/form-data; boundary=x", "--x\r\nContent-Dis", 400, ""},
		{"malformed urlencoding", "POST", "/MAAS/api/2.0/zones/", good(), form, "name=%zz", 400, ""},
		{"malformed JSON", "POST", "/MAAS/api/2.0/zones/", good(), "application/json", "{\"name\":", 400, ""},
		{"nul and controls", "POST", "/MAAS/api/2.0/zones/", good(), form, "name=a%00b%0a", 400, ""},
		{"unknown machine", "GET", machines + "zzzzzz/", good(), "", "", 404, ""},
		{"path tricks", "GET", machines + "..%2f..%2fetc/", good(), "", "", 404, ""},
		{"wrong role", "POST", "/MAAS/api/2.0/zones/", header(plain, nil), form, "name=mine", 403, ""},
		{"another's machine", "POST", one + "?op=commission", header(plain, nil), "", "", 403, ""},
		{"wrong state", "POST", one + "?op=deploy", good(), form, "distro_series=no/such", 0, ""},
		{"wrong state: abort", "POST", one + "?op=abort", good(), "", "", 0, ""},
		{"metadata without token is enlistment", "GET", "/MAAS/metadata/latest/ingot-task", "", "", "", 200, "enlist"},
		{"signal without token", "POST", "/MAAS/metadata/2012-03-01/", "", form, "op=signal&status=OK", 401, ""},
		{"metadata with a token of nobody", "GET", "/MAAS/metadata/latest/ingot-task", header("a:b:c", nil), "", "", 401, ""},
		{"metadata with an API key", "GET", "/MAAS/metadata/latest/ingot-task", good(), "", "", 401, ""},
		{"wrong method", "PATCH", one, good(), "", "", 405, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, text := s.send(c.method, c.path, c.auth, c.contentType, strings.NewReader(c.body))
			if code >= 500 || c.status != 0 && code != c.status || c.status == 0 && code < 200 {
				t.Errorf("status %d, want %d: %.300s", code, c.status, text)
			}
			if !strings.Contains(text, c.text) {
				t.Errorf("text %.300q does not contain %q", text, c.text)
			}
		})
	}
	t.Run("oversize body", func(t *testing.T) {
		big := bytes.Repeat([]byte("x"), 8<<20)
		code, _ := s.send("POST", machines, "", form, bytes.NewReader(big))
		if code != http.StatusRequestEntityTooLarge {
			t.Errorf("8 MiB from a stranger: %d", code)
		}
	})
	t.Run("nothing changed", func(t *testing.T) {
		after := s.read(id)
		before.StatusAction, after.StatusAction, before.StatusMessage, after.StatusMessage = nil, nil, nil, nil
		if !reflect.DeepEqual(before, after) {
			t.Errorf("the machine was\n%+v\nand is\n%+v", before, after)
		}
		s.waitReady()
	})
}

// plainUser makes a user without rights and returns an API key.
func (s *site) plainUser(name string) string {
	s.t.Helper()
	commandInput(s.t, "correct horse\n", "admin", "create-user", name, "--plain", "--dir", s.dir)
	return strings.TrimSpace(command(s.t, "admin", "apikey", "--new", name, "--dir", s.dir))
}

// TestHostilePackets throws garbage at each UDP port. The servers must go on, and machines must still boot.
func TestHostilePackets(t *testing.T) {
	s := newSite(t, siteOptions{machines: 0})
	rnd := rand.New(rand.NewPCG(1, 2))
	for name, addr := range map[string]string{"dhcp": s.ports.dhcp, "tftp": s.ports.tftp} {
		c, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packets(rnd) {
			if _, err := c.Write(p); err != nil && len(p) < 60000 {
				t.Fatalf("%s: %v", name, err)
			}
		}
		c.Close()
	}
	// Files outside must stay there.
	for _, name := range []string{"../../../../etc/passwd", "/etc/passwd", "images/../../etc/passwd", "..\\..\\etc\\passwd", "grub/../../../etc/passwd"} {
		if got := tftpFirst(t, s.ports.tftp, name); bytes.Contains(got, []byte("root:")) {
			t.Errorf("TFTP serves %s", name)
		}
		res, err := http.Get("http://" + s.ports.boot + "/" + strings.ReplaceAll(name, "..", "%2e%2e"))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if bytes.Contains(b, []byte("root:")) {
			t.Errorf("HTTP serves %s", name)
		}
	}
	// Raw garbage at the TCP ports.
	for _, addr := range []string{s.ports.http, s.ports.boot} {
		for _, p := range packets(rnd)[:20] {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			c.Write(p)
			c.Close()
		}
	}
	if err := s.server.alive(); err != nil {
		t.Fatal(err)
	}
	s.waitReady()
	s.machines(siteOptions{machines: 4})
	for _, m := range s.lab.Machines {
		s.enlist(m)
	}
}

// packets are random ones, empty and huge ones, and valid ones that were damaged.
func packets(rnd *rand.Rand) [][]byte {
	var out [][]byte
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	for range 200 {
		out = append(out, random(rnd.IntN(700)))
	}
	out = append(out, []byte{}, []byte{0}, random(60000), []byte{0, 1}, []byte("\x00\x01a"), []byte("\x00\x01\x00\x00"), []byte("\x00\x02evil\x00octet\x00"),
		[]byte("\x00\x01boot\x00netascii\x00blksize\x00-1\x00"), []byte("\x00\x01lpxelinux.0\x00octet\x00blksize\x0099999999999999999999\x00windowsize\x000\x00"),
		[]byte("\x00\x05\x00\x00\x00"), []byte("\x00\x04\x00\x01"), append([]byte("\x00\x01"), bytes.Repeat([]byte("a"), 1400)...))
	d, err := dhcpv4.NewDiscovery(net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}, dhcpv4.WithOption(dhcpv4.OptClientArch(7)))
	if err == nil {
		valid := d.ToBytes()
		for range 300 {
			b := bytes.Clone(valid)
			for range 1 + rnd.IntN(8) {
				b[rnd.IntN(len(b))] = byte(rnd.Uint32())
			}
			out = append(out, b[:rnd.IntN(len(b)+1)])
			out = append(out, b)
		}
	}
	return out
}

// tftpFirst asks for a file and returns the first answer.
func tftpFirst(t *testing.T, addr, name string) []byte {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteTo([]byte("\x00\x01"+name+"\x00octet\x00"), to); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(3 * time.Second))
	buf := make([]byte, 2048)
	n, _, err := c.ReadFrom(buf)
	if err != nil {
		t.Errorf("TFTP %q: no answer: %v", name, err)
		return nil
	}
	if op := binary.BigEndian.Uint16(buf); op != 5 {
		t.Errorf("TFTP %q: opcode %d, want an error", name, op)
	}
	return buf[:n]
}
