package httpboot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/files"
	"github.com/ingot-metal/ingot/bootsrv/loaders"
	"github.com/ingot-metal/ingot/bootsrv/view"
)

type blobs struct {
	dir  string
	away bool
}

func (b *blobs) Open(_ context.Context, sha string) (*os.File, error) {
	if b.away {
		return nil, errors.New("region away: secret")
	}
	return os.Open(filepath.Join(b.dir, sha))
}

func (b *blobs) put(t testing.TB, data []byte) string {
	s := sha256.Sum256(data)
	h := hex.EncodeToString(s[:])
	if err := os.WriteFile(filepath.Join(b.dir, h), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

type site struct {
	addr   string
	kernel string
	blobs  *blobs
	files  *files.Server
	mu     sync.Mutex
	steps  []view.Step
}

func newSite(t testing.TB, region *url.URL, tr http.RoundTripper, kernel []byte) *site {
	t.Helper()
	root := t.TempDir()
	for _, f := range []string{"usr/lib/shim/shimx64.efi.signed", "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "usr/lib/grub/x86_64-efi/http.mod"} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, f), []byte(filepath.Base(f)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &site{blobs: &blobs{dir: t.TempDir()}}
	s.kernel = s.blobs.put(t, kernel)
	agent := s.blobs.put(t, []byte("agent"))
	s.blobs.put(t, []byte("not this rack's"))
	var holder view.Holder
	holder.Set(view.New(api.Snapshot{
		Contents: []api.Content{{SHA256: s.kernel, Size: int64(len(kernel))}},
		Agents:   map[string]api.Content{"amd64": {SHA256: agent, Size: 5}},
		Enlist:   map[string]api.BootImage{"amd64": {Environment: "light", Kernel: s.kernel + "/k/boot-kernel", Initrd: s.kernel + "/k/boot-initrd", PreseedPath: "/x"}},
		Hosts:    []api.SnapHost{{SystemID: "abc", Hostname: "n", Arch: "amd64", Purpose: api.PurposeLocal, MACs: []api.SnapMAC{{MAC: "52:54:00:00:00:01"}}}},
	}))
	s.files = &files.Server{Source: &holder, Loaders: loaders.Find(loaders.Options{Root: root}), Blobs: s.blobs,
		OnStep: func(st view.Step) { s.mu.Lock(); s.steps = append(s.steps, st); s.mu.Unlock() }}
	h := New(Config{Files: s.files, Region: region, Transport: tr, Rack: netip.MustParseAddr("10.0.0.5")})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := h.Server()
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	s.addr = ln.Addr().String()
	return s
}

// raw sends lines as they are and parses the answer.
func (s *site) raw(t testing.TB, method, target, proto string, header ...string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "%s %s %s\r\nHost: x\r\n", method, target, proto)
	for _, h := range header {
		fmt.Fprintf(c, "%s\r\n", h)
	}
	fmt.Fprintf(c, "\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestServe(t *testing.T) {
	kernel := strings.Repeat("0123456789", 10000)
	s := newSite(t, nil, nil, []byte(kernel))
	img := "/images/" + s.kernel + "/ingot/amd64/boot-kernel"
	for name, c := range map[string]struct {
		method, target string
		header         []string
		code           int
		body           string
		want           map[string]string
	}{
		"image":                {"GET", img, nil, 200, kernel, map[string]string{"Content-Length": "100000", "Accept-Ranges": "bytes", "Etag": `"` + s.kernel + `"`}},
		"image, upper case":    {"GET", "/images/" + strings.ToUpper(s.kernel), nil, 200, kernel, nil},
		"head":                 {"HEAD", img, nil, 200, "", map[string]string{"Content-Length": "100000"}},
		"range":                {"GET", img, []string{"Range: bytes=10-14"}, 206, "01234", map[string]string{"Content-Range": "bytes 10-14/100000", "Content-Length": "5"}},
		"range from the end":   {"GET", img, []string{"Range: bytes=-3"}, 206, "789", nil},
		"bad range":            {"GET", img, []string{"Range: bytes=200000-"}, 416, "*", nil},
		"not changed":          {"GET", img, []string{`If-None-Match: "` + s.kernel + `"`}, 304, "", nil},
		"doubled slashes":      {"GET", "//images//grubx64.efi", nil, 200, "grubnetx64.efi.signed", map[string]string{"Content-Type": "application/efi"}},
		"backslash":            {"GET", `/images\grubx64.efi`, nil, 200, "grubnetx64.efi.signed", nil},
		"loader anywhere":      {"GET", "/a/b/c/bootx64.efi", nil, 200, "shimx64.efi.signed", nil},
		"module":               {"GET", "/grub/x86_64-efi/http.mod", nil, 200, "http.mod", nil},
		"module, dots":         {"GET", "/grub/x86_64-efi/../../../../etc/passwd", nil, 404, "*", nil},
		"lst":                  {"GET", "/grub/x86_64-efi/command.lst", nil, 200, "", map[string]string{"Content-Length": "0"}},
		"missing loader":       {"GET", "/lpxelinux.0", nil, 404, "not found\n", map[string]string{"Content-Length": "10"}},
		"unknown":              {"GET", "/favicon.ico", nil, 404, "*", nil},
		"root":                 {"GET", "/", nil, 404, "*", nil},
		"passwd":               {"GET", "/../../etc/passwd", nil, 404, "*", nil},
		"passwd, encoded":      {"GET", "/images/%2e%2e/%2e%2e/etc/passwd", nil, 404, "*", nil},
		"zero byte":            {"GET", "/images/%00", nil, 404, "*", nil},
		"content not ours":     {"GET", "/images/" + strings.Repeat("0", 64) + "/x", nil, 404, "*", nil},
		"ipxe":                 {"GET", "/ipxe.cfg", nil, 200, "*", map[string]string{"Cache-Control": "no-store"}},
		"ipxe host":            {"GET", "/ipxe.cfg-52:54:00:00:00:01?platform=efi", nil, 200, "*", nil},
		"pxelinux unknown":     {"GET", "/pxelinux.cfg/01-52-54-00-00-00-99", nil, 404, "*", nil},
		"agent":                {"GET", "/machine-resources/amd64/ingot-agent", nil, 200, "agent", nil},
		"agent, kernel's name": {"GET", "/machine-resources/x86_64/ingot-agent", nil, 200, "agent", nil},
		"agent, none":          {"GET", "/machine-resources/arm64/ingot-agent", nil, 404, "*", nil},
		"post":                 {"POST", img, []string{"Content-Length: 0"}, 405, "*", map[string]string{"Allow": "GET, HEAD"}},
		"region unknown":       {"GET", "/MAAS/metadata/", nil, 503, "*", map[string]string{"Retry-After": "5"}},
	} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/1.0"} {
			resp, body := s.raw(t, c.method, c.target, proto, c.header...)
			if resp.StatusCode != c.code || (c.body != "*" && body != c.body) {
				t.Errorf("%s, %s: %d, %d bytes %.80q", name, proto, resp.StatusCode, len(body), body)
			}
			if len(resp.TransferEncoding) > 0 || (c.code != 304 && resp.Header.Get("Content-Length") == "") {
				t.Errorf("%s, %s: no Content-Length, %v", name, proto, resp.TransferEncoding)
			}
			for k, v := range c.want {
				if got := resp.Header.Get(k); got != v {
					t.Errorf("%s, %s: %s is %q, want %q", name, proto, k, got, v)
				}
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kinds := map[view.StepKind]int{}
	for _, st := range s.steps {
		kinds[st.Kind]++
		if st.Kind == view.StepBootConfig && (st.SystemID != "abc" || st.Method != "uefi" || st.Rack.String() != "10.0.0.5") {
			t.Errorf("%+v", st)
		}
	}
	// A range that does not begin at 0 and HEAD are no steps.
	if kinds[view.StepBootConfig] != 2 || kinds[view.StepLoader] != 6 || kinds[view.StepKernel] != 4 || kinds[view.StepAgent] != 4 {
		t.Errorf("steps %v", kinds)
	}
	s.blobs.away = true
	resp, body := s.raw(t, "GET", img, "HTTP/1.1")
	if resp.StatusCode != 503 || strings.Contains(body, "secret") || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestProxy(t *testing.T) {
	region := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s for=%s host=%s auth=%s body=%s", r.Method, r.RequestURI, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Host"), r.Header.Get("Authorization"), b)
	}))
	defer region.Close()
	u, err := url.Parse(region.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, u, http.DefaultTransport, nil)
	req, _ := http.NewRequest("POST", "http://"+s.addr+"/MAAS/metadata/latest/?op=signal", strings.NewReader("status=OK"))
	req.Header.Set("Authorization", "OAuth x")
	req.Header.Set("X-Forwarded-For", "6.6.6.6")
	req.Header.Set("X-Forwarded-Host", "evil")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if want := "POST /MAAS/metadata/latest/?op=signal for=127.0.0.1 host=" + s.addr + " auth=OAuth x body=status=OK"; string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if _, body := s.raw(t, "GET", "//MAAS//api/2.0/version/", "HTTP/1.0"); !strings.HasPrefix(body, "GET /MAAS/api/2.0/version/ ") {
		t.Errorf("%s", body)
	}
	region.Close()
	if resp, body := s.raw(t, "GET", "/MAAS/", "HTTP/1.1"); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || strings.Contains(body, "127.0.0.1") {
		t.Errorf("region away: %d %s", resp.StatusCode, body)
	}
	odd := newSite(t, u, transport(func(*http.Request) (*http.Response, error) { return nil, fs.ErrClosed }), nil)
	if resp, _ := odd.raw(t, "GET", "/MAAS/", "HTTP/1.1"); resp.StatusCode != 502 {
		t.Errorf("odd failure: %d", resp.StatusCode)
	}
}

// TestGarbage: strangers' bytes end their connection and nothing else.
func TestGarbage(t *testing.T) {
	s := newSite(t, nil, nil, []byte("k"))
	for _, g := range []string{"\x00\xff\x00", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00", "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://[::1 HTTP/1.1\r\n\r\n",
		"GET /" + strings.Repeat("a", 100000) + " HTTP/1.1\r\n\r\n", "GET /images/" + strings.Repeat("../", 2000) + " HTTP/1.1\r\nHost: x\r\n\r\n", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /ipxe.cfg-default?" + strings.Repeat("&;%", 1000) + " HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, g)
		c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		if bytes.Contains(b, []byte(" 500 ")) {
			t.Errorf("%.40q got %.80q", g, b)
		}
		c.Close()
	}
	if resp, _ := s.raw(t, "GET", "/ipxe.cfg", "HTTP/1.1"); resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
}
