package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// preseed is the part of the cloud-config that a boot reads.
type preseed struct {
	Datasource struct {
		MAAS struct {
			MetadataURL string `yaml:"metadata_url"`
			ConsumerKey string `yaml:"consumer_key"`
			TokenKey    string `yaml:"token_key"`
			TokenSecret string `yaml:"token_secret"`
		} `yaml:"MAAS"`
	} `yaml:"datasource"`
	Reporting struct {
		MAAS struct {
			Type     string `yaml:"type"`
			Endpoint string `yaml:"endpoint"`
		} `yaml:"maas"`
	} `yaml:"reporting"`
}

func parsePreseed(b []byte) (*preseed, error) {
	if !strings.HasPrefix(string(b), "#cloud-config") {
		return nil, errors.New("the answer at cloud-config-url does not begin with #cloud-config")
	}
	p := &preseed{}
	if err := yaml.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("cloud-config: %w", err)
	}
	if p.Datasource.MAAS.MetadataURL == "" {
		return nil, errors.New("cloud-config without datasource.MAAS.metadata_url")
	}
	return p, nil
}

// runKernel is the ephemeral system from its kernel's start to the end of its task.
func (m *Machine) runKernel(ctx context.Context, t target) (action, error) {
	m.set(StateEphemeral)
	args := map[string]string{}
	for _, a := range strings.Fields(t.cmdline) {
		k, v, _ := strings.Cut(a, "=")
		args[k] = v
	}
	mac := strings.ReplaceAll(strings.TrimPrefix(args["BOOTIF"], "01-"), "-", ":")
	if !strings.EqualFold(mac, m.cfg.MAC) {
		return m.hang(fmt.Errorf("kernel command line: BOOTIF=%q is not this machine's %s", args["BOOTIF"], m.cfg.MAC))
	}
	u := args["cloud-config-url"]
	if u == "" {
		return m.hang(errors.New("kernel command line without cloud-config-url"))
	}
	full := strings.HasPrefix(args["root"], "squash:")
	m.step("boot", "kernel runs, full environment: "+fmt.Sprint(full))
	act, err := m.ephemeral(ctx, u, strings.TrimPrefix(args["root"], "squash:"), full)
	switch {
	case ctx.Err() != nil:
		return actOff, ctx.Err()
	case errors.Is(err, errDied):
		return m.hang(err)
	case err != nil && act == actStay:
		return m.hang(err)
	}
	return act, err
}

func (m *Machine) ephemeral(ctx context.Context, configURL, root string, full bool) (action, error) {
	client := dhcpAgent
	if full {
		client = dhcpInitramfs
	}
	if _, err := m.dhcp(ctx, client); err != nil {
		return actStay, fmt.Errorf("in the initramfs: %w", err)
	}
	if full {
		if _, err := m.get(ctx, root, "wget", false); err != nil {
			return actStay, fmt.Errorf("root file system: %w", err)
		}
	}
	if err := m.enter(ctx, "preseed"); err != nil {
		return actStay, err
	}
	c := &metadata{m: m}
	body, err := c.do(ctx, http.MethodGet, configURL, nil, "")
	if err != nil {
		return actOff, fmt.Errorf("preseed: %w", err)
	}
	p, err := parsePreseed(body)
	if err != nil {
		return actStay, err
	}
	c.use(p)
	if full {
		// cloud-init: the events of its stages, the datasource in its fixed order, the preseed once more, then the script.
		c.event(ctx, "cloudinit", "init-local", "finish", "SUCCESS")
		if _, err := c.do(ctx, http.MethodGet, configURL, nil, ""); err != nil {
			return actOff, fmt.Errorf("preseed, second time: %w", err)
		}
		if _, _, err := c.datasource(ctx); err != nil {
			return actOff, err
		}
		c.event(ctx, "cloudinit", "init-network", "finish", "SUCCESS")
		c.event(ctx, "cloudinit", "modules-config", "finish", "SUCCESS")
		c.event(ctx, "cloudinit", "modules-final/config-scripts-user", "start", "")
		rack, err := rackOf(configURL)
		if err != nil {
			return actStay, err
		}
		if _, err := m.get(ctx, rack+"/machine-resources/"+m.cfg.Arch+"/ingot-agent", "curl", false); err != nil {
			return actOff, fmt.Errorf("agent: %w", err)
		}
	}
	return m.agent(ctx, c, configURL, full)
}

// rackOf is scheme and host of a URL: machines talk to their rack only.
func rackOf(u string) (string, error) {
	p, err := url.Parse(u)
	if err != nil || p.Host == "" {
		return "", fmt.Errorf("URL %q has no host", u)
	}
	return p.Scheme + "://" + p.Host, nil
}

// metadata is a client of the metadata service.
type metadata struct {
	m                *Machine
	base             string // metadata_url with its slash
	endpoint         string // of events
	consumer         string
	token, secret    string
	authorized       bool
	skew             time.Duration
	eventFailures    int
	eventsGivenUp    bool
	lastResponseDate time.Time
}

func (c *metadata) use(p *preseed) {
	d := p.Datasource.MAAS
	c.base = strings.TrimRight(d.MetadataURL, "/") + "/"
	c.consumer, c.token, c.secret = d.ConsumerKey, d.TokenKey, d.TokenSecret
	c.authorized = d.TokenKey != ""
	c.endpoint = p.Reporting.MAAS.Endpoint
}

// root is the metadata tree without the parts that preseeds put behind it.
func (c *metadata) root() string {
	r := c.base
	for _, part := range []string{"enlist/", "curtin/"} {
		r = strings.TrimSuffix(r, part)
	}
	return r
}

// statusError is an answer that is not a success.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP %d: %.200s", e.code, e.text) }

func status(err error) int {
	var s *statusError
	if errors.As(err, &s) {
		return s.code
	}
	return 0
}

// do calls the service, and again after a pause while it cannot be reached or answers 5xx. A 401 or 403 with a Date header is
// tried once more with the server's clock.
func (c *metadata) do(ctx context.Context, method, u string, body []byte, contentType string) ([]byte, error) {
	for try := 0; ; try++ {
		b, err := c.once(ctx, method, u, body, contentType)
		if err == nil || ctx.Err() != nil {
			return b, err
		}
		code := status(err)
		if (code == http.StatusUnauthorized || code == http.StatusForbidden) && c.authorized && !c.lastResponseDate.IsZero() && c.skew == 0 {
			if skew := time.Until(c.lastResponseDate); skew.Abs() > 30*time.Second {
				c.skew = skew
				continue
			}
		}
		if code != 0 && code < 500 && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests || try >= len(c.m.cfg.Retry) {
			return nil, err
		}
		c.m.step("agent", fmt.Sprintf("%s %s: %v; again", method, u, err))
		if err := sleep(ctx, c.m.cfg.Retry[try]); err != nil {
			return nil, err
		}
	}
}

func (c *metadata) once(ctx context.Context, method, u string, body []byte, contentType string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, u, strings.NewReader(string(body)))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("User-Agent", "ingot-lab/1")
	if c.authorized {
		req.Header.Set("Authorization", fmt.Sprintf(
			`OAuth oauth_nonce="%s", oauth_timestamp="%d", oauth_version="1.0", oauth_signature_method="PLAINTEXT", oauth_consumer_key="%s", oauth_token="%s", oauth_signature="%%26%s"`,
			nonce(), time.Now().Add(c.skew).Unix(), c.consumer, c.token, c.secret))
	}
	resp, err := c.m.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	c.lastResponseDate, _ = http.ParseTime(resp.Header.Get("Date")) // the zero time when it is absent
	b, err := readBody(resp)
	if err != nil {
		return nil, err
	}
	c.m.step("http", fmt.Sprintf("%s %s: %d", method, u, resp.StatusCode))
	if resp.StatusCode/100 != 2 {
		return nil, &statusError{resp.StatusCode, strings.TrimSpace(string(b))}
	}
	if resp.StatusCode == http.StatusNoContent {
		return nil, nil
	}
	return b, nil
}

// datasource asks what cloud-init's MAAS datasource asks, in its order.
func (c *metadata) datasource(ctx context.Context) (sys System, userData []byte, err error) {
	base := c.base + "2012-03-01/"
	get := func(path string, must bool) ([]byte, error) {
		b, err := c.do(ctx, http.MethodGet, base+path, nil, "")
		if status(err) == http.StatusNotFound && !must {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("datasource: %s: %w", path, err)
		}
		return b, nil
	}
	if _, err := get("meta-data/instance-id", true); err != nil {
		return sys, nil, err
	}
	id, err := get("meta-data/instance-id", true)
	if err != nil {
		return sys, nil, err
	}
	host, err := get("meta-data/local-hostname", true)
	if err != nil {
		return sys, nil, err
	}
	keys, err := get("meta-data/public-keys", false)
	if err != nil {
		return sys, nil, err
	}
	vendor, err := get("meta-data/vendor-data", false)
	if err != nil {
		return sys, nil, err
	}
	var v any
	if err := yaml.Unmarshal(vendor, &v); err != nil {
		return sys, nil, fmt.Errorf("datasource: vendor-data is no YAML: %w", err)
	}
	if userData, err = get("user-data", false); err != nil {
		return sys, nil, err
	}
	sys.InstanceID, sys.Hostname = string(id), string(host)
	for _, k := range strings.Split(string(keys), "\n") {
		if k = strings.TrimSpace(k); k != "" {
			sys.PublicKeys = append(sys.PublicKeys, k)
		}
	}
	return sys, userData, nil
}

// event posts a status event. Like cloud-init's webhook it never stops the boot, and gives up after three failures in a row.
func (c *metadata) event(ctx context.Context, origin, name, kind, result string) {
	c.post(ctx, origin, name, kind, result, name)
}

func (c *metadata) post(ctx context.Context, origin, name, kind, result, description string) {
	if c.endpoint == "" || c.eventsGivenUp {
		return
	}
	e := map[string]any{"name": name, "description": description, "event_type": kind, "origin": origin, "timestamp": float64(time.Now().UnixMilli()) / 1000}
	if result != "" {
		e["result"] = result
	}
	contentType := ""
	if origin == "curtin" {
		e["level"] = "INFO"
		contentType = "application/json"
	}
	b, err := json.Marshal(e)
	if err != nil {
		c.m.step("agent", "event: "+err.Error())
		return
	}
	if _, err := c.once(ctx, http.MethodPost, c.endpoint, b, contentType); err != nil {
		c.m.step("agent", fmt.Sprintf("event %s: %v", name, err))
		if c.eventFailures++; c.eventFailures >= 3 {
			c.eventsGivenUp = origin != "curtin"
		}
		return
	}
	c.eventFailures = 0
}
