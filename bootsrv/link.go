package bootsrv

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
)

// regionName is the DNS name in the region's certificate: whatever address the rack reaches it by, this is who answers.
const regionName = "ingot-region"

// maxLinkAnswer bounds an answer of the region: a whole snapshot of 100,000 machines is far below.
const maxLinkAnswer = 512 << 20

// identityFile holds what enrolment brought; the private key is in it, so it is readable by its owner only.
const identityFile = "identity.json"

type identity struct {
	SystemID    string `json:"system_id"`
	Key         string `json:"key"`         // PEM
	Certificate string `json:"certificate"` // PEM
	CA          string `json:"ca"`          // PEM
}

// link is the client of the region.
type link struct {
	base string
	hc   *http.Client
}

// linkError is an answer of the region that is not a success.
type linkError struct {
	Status int
	Text   string
}

func (e *linkError) Error() string {
	return fmt.Sprintf("the region answered %d: %s", e.Status, e.Text)
}

// refused says whether the region answered with this status.
func refused(err error, status int) bool {
	var le *linkError
	return errors.As(err, &le) && le.Status == status
}

func parseFingerprint(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(s), "sha256:"), ":", ""))
	if err != nil || len(b) != sha256.Size {
		return nil, errors.New("64 hexadecimal digits, with or without colons")
	}
	return b, nil
}

// connect makes the link: in this process, with the identity on disk, or by enrolling.
func connect(ctx context.Context, c *Config, hello api.RackHello) (*link, error) {
	if c.Transport != nil {
		return &link{base: "http://region.in-process", hc: &http.Client{Transport: c.Transport}}, nil
	}
	file := filepath.Join(c.StateDir, identityFile)
	raw, err := os.ReadFile(file)
	var id identity
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if id, err = enrol(ctx, c, hello); err != nil {
			return nil, err
		}
		raw, err := json.Marshal(id)
		if err != nil {
			return nil, err
		}
		if err := writeFile(file, raw, 0o600); err != nil {
			return nil, fmt.Errorf("keep the rack's identity: %w", err)
		}
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(raw, &id); err != nil {
			return nil, fmt.Errorf("%s cannot be read: %w", file, err)
		}
	}
	cert, err := tls.X509KeyPair([]byte(id.Certificate), []byte(id.Key))
	if err != nil {
		return nil, fmt.Errorf("%s holds no usable certificate: %w", file, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(id.CA)) {
		return nil, fmt.Errorf("%s holds no certificate of the region", file)
	}
	return &link{base: strings.TrimSuffix(c.RegionURL, "/"), hc: &http.Client{Transport: transport(&tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: regionName, RootCAs: roots, Certificates: []tls.Certificate{cert},
	})}}, nil
}

func transport(t *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig:       t,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 90 * time.Second, // above the longest poll
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   16,
		ForceAttemptHTTP2:     true,
	}
}

var errNotEnrolled = errors.New("this rack is not enrolled: it needs the region's enrolment secret and fingerprint once")

// enrol asks the region for a certificate. It shows the secret only to a server whose chain holds the pinned certificate.
func enrol(ctx context.Context, c *Config, hello api.RackHello) (identity, error) {
	if c.Secret == "" || c.Fingerprint == "" {
		return identity{}, errNotEnrolled
	}
	pin, err := parseFingerprint(c.Fingerprint)
	if err != nil {
		return identity{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: hello.Hostname}}, key)
	if err != nil {
		return identity{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return identity{}, err
	}
	l := &link{base: strings.TrimSuffix(c.RegionURL, "/"), hc: &http.Client{Timeout: 30 * time.Second, Transport: transport(&tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: regionName,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection below pins the certificate instead of trusting the system's
		VerifyConnection:   func(cs tls.ConnectionState) error { return verifyPinned(cs.PeerCertificates, pin) },
	})}}
	var out api.RackEnrolled
	err = l.call(ctx, http.MethodPost, api.RackEnrolPath, api.RackEnrol{
		Secret: c.Secret, Hello: hello,
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	}, &out)
	if err != nil {
		return identity{}, fmt.Errorf("enrol: %w", err)
	}
	return identity{SystemID: out.SystemID, Certificate: out.Certificate, CA: out.CA,
		Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}, nil
}

// verifyPinned accepts a chain that leads to the certificate with the given digest.
func verifyPinned(chain []*x509.Certificate, pin []byte) error {
	roots := x509.NewCertPool()
	found := false
	for _, c := range chain {
		if sum := sha256.Sum256(c.Raw); bytes.Equal(sum[:], pin) {
			roots.AddCert(c)
			found = true
		}
	}
	if !found {
		return errors.New("the region's certificate is not the one of the given fingerprint")
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: regionName, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

// call sends a request with a JSON body and reads a JSON answer. A 204 leaves out alone.
func (l *link) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, l.base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := l.hc.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return answerError(res)
	}
	if res.StatusCode == http.StatusNoContent || out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxLinkAnswer)).Decode(out); err != nil {
		return fmt.Errorf("the region's answer to %s cannot be read: %w", path, err)
	}
	return nil
}

func answerError(res *http.Response) error {
	var e api.RackError
	raw, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
	if json.Unmarshal(raw, &e) != nil || e.Error == "" {
		e.Error = http.StatusText(res.StatusCode)
	}
	return &linkError{Status: res.StatusCode, Text: e.Error}
}

// hello tells the region what this rack is.
func (l *link) hello(ctx context.Context, h api.RackHello) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return l.call(ctx, http.MethodPost, api.RackHelloPath, h, nil)
}

// snapshot waits for a snapshot that is newer than since; ok is false when there was none in that time.
func (l *link) snapshot(ctx context.Context, since int64, wait time.Duration) (s api.Snapshot, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait+60*time.Second)
	defer cancel()
	err = l.call(ctx, http.MethodGet, api.RackSnapshotPath+"?since="+strconv.FormatInt(since, 10)+"&wait="+strconv.Itoa(int(wait/time.Second)), nil, &s)
	return s, s.Version != 0, err
}

// claim waits for work.
func (l *link) claim(ctx context.Context, limit int, wait time.Duration) (api.RackJobs, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+30*time.Second)
	defer cancel()
	var out api.RackJobs
	err := l.call(ctx, http.MethodPost, api.RackClaimPath, api.RackClaim{Limit: limit, WaitSeconds: int(wait / time.Second)}, &out)
	return out, err
}

func jobPath(id int64, what string) string {
	return api.RackJobsPath + strconv.FormatInt(id, 10) + "/" + what
}

func (l *link) heartbeat(ctx context.Context, id, attempt int64) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var out api.JobLease
	err := l.call(ctx, http.MethodPost, jobPath(id, "heartbeat"), api.JobHeartbeat{Attempt: attempt}, &out)
	return time.Duration(out.LeaseSeconds) * time.Second, err
}

func (l *link) result(ctx context.Context, id int64, r api.JobResult) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return l.call(ctx, http.MethodPost, jobPath(id, "result"), r, nil)
}

func (l *link) report(ctx context.Context, raw json.RawMessage) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	return l.call(ctx, http.MethodPost, api.RackReportsPath, raw, nil)
}

// holds tells the region what this rack holds.
func (l *link) holds(ctx context.Context, c api.RackCache) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return l.call(ctx, http.MethodPost, api.RackCachePath, c, nil)
}

// content opens a blob from a byte offset on.
func (l *link) content(ctx context.Context, sha string, offset int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.base+api.RackContentPath+sha, nil)
	if err != nil {
		return nil, err
	}
	want := http.StatusOK
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
		want = http.StatusPartialContent
	}
	res, err := l.hc.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != want {
		defer res.Body.Close()
		return nil, answerError(res)
	}
	return res.Body, nil
}

// backoff is a growing, jittered pause.
type backoff struct {
	max, d time.Duration
}

func (b *backoff) reset() { b.d = 0 }

// wait pauses, longer each time; it returns the context's error when that ends first.
func (b *backoff) wait(ctx context.Context) error {
	b.d = min(max(2*b.d, 200*time.Millisecond), b.max)
	return pause(ctx, b.d/2+mrand.N(b.d/2+1))
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// writeFile replaces a file in one step: after a crash there is the old or the new one.
func writeFile(file string, raw []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails after the rename, as it should
	_, err = tmp.Write(raw)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
