package clients

import (
	"bytes"
	"context"
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

	maas "github.com/canonical/gomaasclient/client"
)

// site is a running server with lab machines behind it.
type site struct {
	url string // http://127.0.0.1:PORT/MAAS
	key string
}

// dev returns the server under test: the one that INGOT_URL and INGOT_APIKEY name, else a fresh `ingot dev` with n lab machines,
// which ends with the test.
func dev(t *testing.T, n int) site {
	t.Helper()
	if u := os.Getenv("INGOT_URL"); u != "" {
		return site{url: u, key: os.Getenv("INGOT_APIKEY")}
	}
	bin := os.Getenv("INGOT_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin", "ingot")
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("no server to test: %v; run `make build` first, or set INGOT_BIN, or INGOT_URL and INGOT_APIKEY", err)
	}
	dir := t.TempDir()
	addr := freeAddr(t)
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
		if t.Failed() {
			if b, err := os.ReadFile(log.Name()); err == nil {
				if len(b) > 20000 {
					b = b[len(b)-20000:]
				}
				t.Logf("end of the server's log:\n%s", b)
			}
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
		res.Body.Close()
		return res.StatusCode == 200, res.Status
	})
	key, err := os.ReadFile(filepath.Join(dir, "admin.apikey"))
	if err != nil {
		t.Fatal(err)
	}
	return site{url: "http://" + addr + "/MAAS", key: strings.TrimSpace(string(key))}
}

// upload gives the server an image: what it is, and then its bytes where the answer says.
func upload(t *testing.T, c *maas.APIClient, name, title string, content []byte) {
	t.Helper()
	sum := sha256.Sum256(content)
	var made struct {
		Sets map[string]struct {
			Files map[string]struct {
				UploadURI string `json:"upload_uri"`
			} `json:"files"`
		} `json:"sets"`
	}
	err := c.GetSubObject("boot-resources").Post("", url.Values{"name": {name}, "title": {title}, "architecture": {"amd64/generic"}, "filetype": {"tgz"},
		"sha256": {hex.EncodeToString(sum[:])}, "size": {strconv.Itoa(len(content))}}, func(data []byte) error { return json.Unmarshal(data, &made) })
	if err != nil {
		t.Fatalf("image %s: %v", name, err)
	}
	for _, s := range made.Sets {
		for _, f := range s.Files {
			to := *c.AuthClient.APIURL
			to.Path = f.UploadURI
			req, err := http.NewRequestWithContext(t.Context(), "PUT", to.String(), bytes.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/octet-stream")
			if err := c.AuthClient.Signer.OAuthSign(req); err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 200 {
				t.Fatalf("chunk of %s: %s", name, res.Status)
			}
			return
		}
	}
	t.Fatalf("image %s has no place to upload to: %+v", name, made)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// waitFor polls until ok, and fails the test with the last state that it saw.
func waitFor(t *testing.T, limit time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		done, state := ok()
		if done {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s in vain until %s; last: %s", limit, what, state)
		case <-tick.C:
		}
	}
}
