package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/api"
	"go.yaml.in/yaml/v3"
)

// maxBody bounds every answer of the metadata service that is kept in memory.
const maxBody = 64 << 20

// Credentials are what a machine signs its requests with: OAuth 1.0 PLAINTEXT, with an empty consumer secret.
type Credentials struct {
	ConsumerKey string `yaml:"consumer_key"`
	TokenKey    string `yaml:"token_key"`
	TokenSecret string `yaml:"token_secret"`
}

func (c Credentials) empty() bool { return c.TokenKey == "" }

// Preseed is the part of the cloud-config at cloud-config-url that the agent uses.
type Preseed struct {
	Datasource struct {
		MAAS struct {
			MetadataURL string `yaml:"metadata_url"`
			Credentials `yaml:",inline"`
		} `yaml:"MAAS"`
	} `yaml:"datasource"`
	Reporting struct {
		MAAS struct {
			Endpoint    string `yaml:"endpoint"`
			Credentials `yaml:",inline"`
		} `yaml:"maas"`
	} `yaml:"reporting"`
	PowerState map[string]any `yaml:"power_state"`
}

// ParsePreseed reads a cloud-config document.
func ParsePreseed(b []byte) (Preseed, error) {
	var p Preseed
	if !bytes.HasPrefix(bytes.TrimLeft(b, "\ufeff"), []byte("#cloud-config")) {
		return p, errors.New("preseed: does not begin with #cloud-config")
	}
	if err := yaml.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("preseed: %w", err)
	}
	if p.Datasource.MAAS.MetadataURL == "" {
		return p, errors.New("preseed: no datasource.MAAS.metadata_url")
	}
	if _, err := checkURL(p.Datasource.MAAS.MetadataURL); err != nil {
		return p, fmt.Errorf("preseed: %w", err)
	}
	return p, nil
}

// HTTPError is an answer that is not 2xx.
type HTTPError struct {
	Method, URL string
	Status      int
	Body        string // the first few hundred bytes
}

func (e *HTTPError) Error() string {
	return fmt.Sprintf("%s %s: %d %s", e.Method, e.URL, e.Status, strings.TrimSpace(e.Body))
}

// retryWaits is how long the agent waits between tries, in seconds: MAAS's own clients do the same.
var retryWaits = []time.Duration{1, 1, 2, 4, 8, 16, 32}

// Client talks to the metadata service.
type Client struct {
	HTTP *http.Client
	Now  func() time.Time
	// Unit scales the waits between tries; tests shrink it. Zero: a second.
	Unit time.Duration
	Logf func(format string, args ...any)

	mu   sync.Mutex
	skew time.Duration // server's clock minus ours
}

// NewClient returns a client that uses no proxy: the rack is always near.
func NewClient(logf func(string, ...any)) *Client {
	tr := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ResponseHeaderTimeout: 60 * time.Second,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       30 * time.Second,
	}
	return &Client{HTTP: &http.Client{Transport: tr}, Now: time.Now, Logf: logf}
}

func (c *Client) logf(format string, args ...any) {
	if c.Logf != nil {
		c.Logf(format, args...)
	}
}

func (c *Client) authorization(cr Credentials) string {
	c.mu.Lock()
	now := c.Now().Add(c.skew)
	c.mu.Unlock()
	var n [16]byte
	_, _ = rand.Read(n[:]) // never fails since Go 1.24
	return fmt.Sprintf(`OAuth oauth_nonce="%s", oauth_timestamp="%d", oauth_version="1.0", oauth_signature_method="PLAINTEXT", `+
		`oauth_consumer_key="%s", oauth_token="%s", oauth_signature="%%26%s"`,
		hex.EncodeToString(n[:]), now.Unix(), url.QueryEscape(cr.ConsumerKey), url.QueryEscape(cr.TokenKey), url.QueryEscape(cr.TokenSecret))
}

// request is one call; body may be sent several times.
type request struct {
	method, url, contentType string
	body                     []byte
	creds                    *Credentials
	tries                    int  // 0: all of retryWaits
	patient                  bool // go on for two hours after that: nobody has said what the machine is to do
}

// patientTries are a minute apart.
const patientTries = 120

// away says whether an error means that the server cannot be reached or cannot answer now; anything else will be the same next time.
func away(err error) bool {
	var (
		he *HTTPError
		ue *url.Error
	)
	if errors.As(err, &he) {
		return he.Status == 408 || he.Status == 429 || he.Status >= 500
	}
	return errors.As(err, &ue)
}

// do sends r until it succeeds, is refused for good, or the tries are used up. A 401 or 403 with a Date header moves our clock once.
func (c *Client) do(ctx context.Context, r request) ([]byte, error) {
	unit := c.Unit
	if unit == 0 {
		unit = time.Second
	}
	tries := r.tries
	if tries == 0 || tries > len(retryWaits)+1 {
		tries = len(retryWaits) + 1
	}
	if r.patient {
		tries += patientTries
	}
	skewed := false
	var last error
	for i := 0; i < tries; i++ {
		if i > 0 {
			wait := time.Duration(60)
			if i <= len(retryWaits) {
				wait = retryWaits[i-1]
			}
			c.logf("again in %ds: %v", wait, last)
			select {
			case <-time.After(wait * unit):
			case <-ctx.Done():
				return nil, errors.Join(ctx.Err(), last)
			}
		}
		b, hdr, err := c.once(ctx, r)
		if err == nil {
			return b, nil
		}
		last = err
		var he *HTTPError
		if !errors.As(err, &he) {
			continue // the network; try again
		}
		switch {
		case he.Status == 401 || he.Status == 403:
			date, derr := http.ParseTime(hdr.Get("Date"))
			if r.creds == nil || derr != nil || skewed {
				return nil, err
			}
			skewed = true
			c.mu.Lock()
			c.skew = date.Sub(c.Now())
			c.mu.Unlock()
		case he.Status == 408 || he.Status == 429 || he.Status >= 500:
		default:
			return nil, err
		}
	}
	return nil, last
}

func (c *Client) once(ctx context.Context, r request) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader(r.body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("User-Agent", "ingot-agent/1")
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if r.creds != nil && !r.creds.empty() {
		req.Header.Set("Authorization", c.authorization(*r.creds))
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err != nil {
		return nil, res.Header, err
	}
	if len(b) > maxBody {
		return nil, res.Header, fmt.Errorf("%s: answer is larger than %d bytes", r.url, maxBody)
	}
	if res.StatusCode/100 != 2 {
		return nil, res.Header, &HTTPError{Method: r.method, URL: r.url, Status: res.StatusCode, Body: clip(string(b), 400)}
	}
	return b, res.Header, nil
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// Preseed fetches and parses the document at cloud-config-url.
func (c *Client) Preseed(ctx context.Context, u string) (Preseed, error) {
	b, err := c.do(ctx, request{method: "GET", url: u, patient: true})
	if err != nil {
		return Preseed{}, err
	}
	return ParsePreseed(b)
}

// Metadata is the service as one machine sees it.
type Metadata struct {
	Client *Client
	Base   string // ends in "/": …/MAAS/metadata/
	Creds  Credentials
	Events Credentials
	// Endpoint takes the status events; empty: none.
	Endpoint string
}

// metadataFor reads the addresses and credentials from a preseed. Preseeds of an install name …/metadata/curtin and those of
// enlistment …/metadata/enlist: the tree above serves both.
func metadataFor(c *Client, p Preseed) *Metadata {
	base := strings.TrimRight(p.Datasource.MAAS.MetadataURL, "/")
	for _, suffix := range []string{"/curtin", "/enlist"} {
		base = strings.TrimSuffix(base, suffix)
	}
	m := &Metadata{Client: c, Base: base + "/", Creds: p.Datasource.MAAS.Credentials, Endpoint: p.Reporting.MAAS.Endpoint, Events: p.Reporting.MAAS.Credentials}
	if m.Events.empty() {
		m.Events = m.Creds
	}
	return m
}

// Anonymous reports whether the machine has no credentials yet.
func (m *Metadata) Anonymous() bool { return m.Creds.empty() }

// Task fetches what this boot is for.
func (m *Metadata) Task(ctx context.Context) (api.Task, error) {
	u := m.Base + "latest/ingot-task"
	r := request{method: "GET", url: u, creds: &m.Creds, patient: true}
	if m.Anonymous() {
		r = request{method: "GET", url: m.Base + "enlist/latest/ingot-task", patient: true}
	}
	b, err := m.Client.do(ctx, r)
	if err != nil {
		return api.Task{}, err
	}
	var t api.Task
	if err := json.Unmarshal(b, &t); err != nil {
		return t, fmt.Errorf("task: %w", err)
	}
	return t, nil
}

// Signal is one op=signal.
type Signal struct {
	Status, Error, Name string
	ScriptResultID      int64
	ScriptVersionID     int64
	ExitStatus          *int
	Runtime             time.Duration
	PowerType           string
	PowerParameters     map[string]string
	Files               map[string][]byte // part and file name → content
	Tries               int               // 0: as long as it takes
}

// Signal reports a status. Credentials in PowerParameters travel in the body only; they are never logged.
func (m *Metadata) Signal(ctx context.Context, s Signal) error {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	field := func(k, v string) {
		if v != "" {
			_ = w.WriteField(k, v)
		}
	}
	field("op", "signal")
	field("status", s.Status)
	field("error", s.Error)
	field("name", s.Name)
	if s.ScriptResultID != 0 {
		field("script_result_id", strconv.FormatInt(s.ScriptResultID, 10))
	}
	if s.ScriptVersionID != 0 {
		field("script_version_id", strconv.FormatInt(s.ScriptVersionID, 10))
	}
	if s.ExitStatus != nil {
		field("exit_status", strconv.Itoa(*s.ExitStatus))
		field("runtime", strconv.FormatFloat(s.Runtime.Seconds(), 'f', 3, 64))
	}
	if s.PowerType != "" {
		field("power_type", s.PowerType)
		b, err := json.Marshal(s.PowerParameters)
		if err != nil {
			return err
		}
		field("power_parameters", string(b))
	}
	for name, data := range s.Files {
		h := textproto.MIMEHeader{}
		h.Set("Content-Disposition", fmt.Sprintf(`form-data; name="%s"; filename="%s"`, name, name))
		h.Set("Content-Type", "application/octet-stream")
		p, err := w.CreatePart(h)
		if err != nil {
			return err
		}
		if _, err := p.Write(data); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, err := m.Client.do(ctx, request{method: "POST", url: m.Base + "2012-03-01/", contentType: w.FormDataContentType(), body: body.Bytes(), creds: &m.Creds, tries: s.Tries})
	return err
}

// NetbootOff tells the region that this machine's next boot is from its disk.
func (m *Metadata) NetbootOff(ctx context.Context) error {
	_, err := m.Client.do(ctx, request{method: "POST", url: m.Base + "2012-03-01/", contentType: "application/x-www-form-urlencoded",
		body: []byte("op=netboot_off"), creds: &m.Creds})
	return err
}
