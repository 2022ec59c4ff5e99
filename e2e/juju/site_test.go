package juju

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/juju/gomaasapi/v2"
)

// site is a running `ingot dev` with lab machines, and its administrator: what an operator does before Juju comes.
type site struct {
	t      *testing.T
	url    string // http://127.0.0.1:PORT/MAAS
	key    string
	client *gomaasapi.Client
	maas   *gomaasapi.MAASObject
}

// dev starts `ingot dev` with n lab machines; it ends with the test.
func dev(t *testing.T, n int) *site {
	t.Helper()
	bin := os.Getenv("INGOT_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin", "ingot")
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("no server to test: %v; run `make build` first, or set INGOT_BIN", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "dev.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "dev", "--dir", dir, "--http", addr, "--machines", fmt.Sprint(n))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			t.Error("the server did not stop within 20 s of SIGTERM")
		}
		if b, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("end of the server's log:\n%s", b[max(0, len(b)-20000):])
		}
	})
	waitFor(t, time.Minute, "the server answers /healthz", func() (bool, string) {
		select {
		case err := <-exited:
			exited <- err
			b, _ := os.ReadFile(log.Name())
			t.Fatalf("the server ended: %v\n%s", err, b)
		default:
		}
		res, err := http.Get("http://" + addr + "/healthz")
		if err != nil {
			return false, err.Error()
		}
		_ = res.Body.Close()
		return res.StatusCode == 200, res.Status
	})
	key, err := os.ReadFile(filepath.Join(dir, "admin.apikey"))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, url: "http://" + addr + "/MAAS", key: strings.TrimSpace(string(key))}
	if s.client, err = gomaasapi.NewAuthenticatedClient(gomaasapi.AddAPIVersionToURL(s.url, "2.0"), s.key); err != nil {
		t.Fatal(err)
	}
	s.maas = gomaasapi.NewMAAS(*s.client)
	return s
}

// form makes values of pairs of keys and values.
func form(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

// post calls an operation; "" creates. It returns what the answer says.
func (s *site) post(path, op string, pairs ...string) map[string]any {
	s.t.Helper()
	o, err := s.maas.GetSubObject(path).CallPost(op, form(pairs...))
	if err != nil {
		s.t.Fatalf("POST %s op=%s: %v", path, op, err)
	}
	b, err := o.GetBytes()
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]any{}
	if len(b) > 0 {
		_ = json.Unmarshal(b, &out) // not every answer is an object
	}
	return out
}

// put changes an object.
func (s *site) put(path string, pairs ...string) {
	s.t.Helper()
	if _, err := s.maas.GetSubObject(path).Update(form(pairs...)); err != nil {
		s.t.Fatalf("PUT %s: %v", path, err)
	}
}

// list reads a collection.
func (s *site) list(path string, pairs ...string) (out []map[string]any) {
	s.t.Helper()
	o, err := s.maas.GetSubObject(path).CallGet("", form(pairs...))
	if err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
	b, err := o.GetBytes()
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
	return out
}

// num renders an id that JSON made a float.
func num(v any) string {
	f, ok := v.(float64)
	if !ok {
		return fmt.Sprint(v)
	}
	return strconv.FormatInt(int64(f), 10)
}

// ready waits until n lab machines have enlisted themselves, commissions them, and returns them by MAC when all are Ready.
func (s *site) ready(n int) (ids []string) {
	s.t.Helper()
	states := func(want string) func() (bool, string) {
		return func() (bool, string) {
			var got []string
			ids = ids[:0]
			for i := 1; i <= n; i++ {
				for _, m := range s.list("machines", "mac_address", fmt.Sprintf("52:54:00:77:00:%02x", i)) {
					if m["status_name"] == want && m["power_state"] == "off" {
						ids = append(ids, m["system_id"].(string))
					}
					got = append(got, fmt.Sprint(m["status_name"], " ", m["power_state"]))
				}
			}
			return len(ids) == n, strings.Join(got, ", ")
		}
	}
	waitFor(s.t, 90*time.Second, "the lab machines have enlisted themselves", states("New"))
	for _, id := range ids {
		s.post("machines/"+id, "commission")
	}
	waitFor(s.t, 90*time.Second, "the lab machines are Ready", states("Ready"))
	return ids
}

// image uploads something that lab machines take for a root file system.
func (s *site) image(name string) {
	s.t.Helper()
	var content bytes.Buffer
	z := gzip.NewWriter(&content)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		s.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		s.t.Fatal(err)
	}
	sum := sha256.Sum256(content.Bytes())
	made := s.post("boot-resources", "", "name", name, "title", "Image of "+name, "architecture", "amd64/generic", "filetype", "tgz",
		"sha256", hex.EncodeToString(sum[:]), "size", strconv.Itoa(content.Len()))
	for _, set := range made["sets"].(map[string]any) {
		for _, f := range set.(map[string]any)["files"].(map[string]any) {
			to := *s.client.APIURL
			to.Path = f.(map[string]any)["upload_uri"].(string)
			req, err := http.NewRequestWithContext(s.t.Context(), "PUT", to.String(), bytes.NewReader(content.Bytes()))
			if err != nil {
				s.t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/octet-stream")
			if err := s.client.Signer.OAuthSign(req); err != nil {
				s.t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				s.t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != 200 {
				s.t.Fatalf("upload of %s: %s", name, res.Status)
			}
		}
	}
}

// waitFor polls until ok, and fails the test with the last state that it saw.
func waitFor(t *testing.T, limit time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		done, state := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s; last: %s", limit, what, state)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
