package metadata

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

type site struct {
	t   *testing.T
	url string
	p   *provisioner.Service
	db  *storage.DB
}

func newSite(t *testing.T) *site {
	t.Helper()
	db := storagetest.New(t)
	p := provisioner.New(provisioner.Config{DB: db})
	hs := httptest.NewServer(New(Config{Provisioner: p}))
	t.Cleanup(hs.Close)
	return &site{t, hs.URL, p, db}
}

// creds are what a machine finds in its preseed.
type creds struct {
	MetadataURL string `yaml:"metadata_url"`
	Consumer    string `yaml:"consumer_key"`
	Token       string `yaml:"token_key"`
	Secret      string `yaml:"token_secret"`
}

func (c creds) header(at time.Time) string {
	return fmt.Sprintf(`OAuth realm="", oauth_nonce="%d", oauth_timestamp="%d", oauth_version="1.0", oauth_signature_method="PLAINTEXT",oauth_consumer_key="%s",oauth_token="%s",oauth_signature="%%26%s"`,
		at.UnixNano(), at.Unix(), c.Consumer, c.Token, c.Secret)
}

func (s *site) do(method, path, auth, contentType string, body []byte, headers ...string) (int, string, http.Header) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

func (s *site) enlist() (string, creds) {
	s.t.Helper()
	arch, yes := "amd64", true
	b, err := s.p.CreateMachine(context.Background(), provisioner.MachineSpec{Architecture: &arch, MACs: []string{"52:54:00:00:00:01"}, Commission: &yes})
	if err != nil {
		s.t.Fatal(err)
	}
	return b.Node.SystemID, s.preseed(b.Node.SystemID)
}

func (s *site) preseed(systemID string) creds {
	s.t.Helper()
	status, body, _ := s.do("GET", "/MAAS/metadata//latest/by-id/"+systemID+"/?op=get_preseed", "", "", nil, "X-Forwarded-Host", "10.0.0.2:5248")
	var doc struct {
		Datasource struct {
			MAAS creds `yaml:"MAAS"`
		} `yaml:"datasource"`
	}
	if err := yaml.Unmarshal([]byte(body), &doc); err != nil || status != 200 || !strings.HasPrefix(body, "#cloud-config\n") {
		s.t.Fatalf("%d %v %s", status, err, body)
	}
	return doc.Datasource.MAAS
}

func TestDatasource(t *testing.T) {
	s := newSite(t)
	id, c := s.enlist()
	if c.MetadataURL != "http://10.0.0.2:5248/MAAS/metadata/" || c.Consumer == "" {
		t.Fatalf("%+v", c)
	}
	if again := s.preseed(id); again != c {
		t.Fatal("the preseed changes when it is fetched again")
	}
	auth := c.header(time.Now())
	for _, x := range []struct {
		path, auth string
		status     int
		body       string
	}{
		{"", auth, 200, "latest\n2012-03-01"},
		{"latest/", auth, 200, "maas-commissioning-scripts\nmeta-data"},
		{"2012-03-01/meta-data/", auth, 200, "instance-id\nlocal-hostname\nvendor-data"},
		{"2012-03-01/meta-data/instance-id", auth, 200, id},
		{"/2012-03-01//meta-data/local-hostname", auth, 200, ".maas"},
		{"2012-03-01/meta-data/public-keys", auth, 200, ""},
		{"2012-03-01/meta-data/vendor-data", auth, 200, "cloud-init: |"},
		{"2012-03-01/meta-data/x509", auth, 200, ""},
		{"2012-03-01/meta-data/nothing", auth, 404, ""},
		{"2013-01-01/meta-data/instance-id", auth, 404, ""},
		{"curtin/2012-03-01/meta-data/instance-id", auth, 200, id},
		{"latest/user-data", auth, 200, "ingot-agent"},
		{"curtin/latest/user-data", auth, 200, "ingot-agent"},
		{"2012-03-01/maas-scripts", auth, 200, `"path":"commissioning/50-maas-01-commissioning"`},
		{"curtin/2012-03-01/maas-scripts", auth, 200, "index.json"},
		{"latest/ingot-task", auth, 200, `{"step":"commission"`},
		{"latest/meta-data/instance-id", "", 200, "i-maas-enlistment"},
		{"enlist/latest/meta-data/local-hostname", "", 200, "maas-enlisting-node"},
		{"latest/meta-data/vendor-data", "", 404, ""},
		{"latest/user-data", "", 200, "#!/bin/sh"},
		{"enlist/latest/ingot-task", "", 200, `{"step":"enlist"`},
		{"latest/maas-scripts", "", 204, ""},
		{"latest/enlist-preseed/?op=get_enlist_preseed", "", 200, "metadata_url: http://"},
		{"latest/enlist-preseed/", "", 400, ""},
		{"latest/by-id/zzzzzz/?op=get_preseed", "", 404, ""},
		{"latest/by-id/..%2f..%2fx/?op=get_preseed", "", 404, ""},
		{"latest/by-mac/52:54:00:00:00:01/meta-data/", "", 403, ""},
		{"latest/meta-data/instance-id", "OAuth oauth_token=\"x\"", 401, ""},
		{"latest/meta-data/instance-id", "Basic eA==", 401, ""},
		{"latest/meta-data/instance-id", strings.Replace(auth, c.Secret, "wrong", 1), 401, ""},
		{"latest/meta-data/instance-id", strings.Replace(auth, c.Consumer, "wrong", 1), 401, ""},
		{"latest/meta-data/instance-id", c.header(time.Now().Add(-time.Hour)), 401, ""},
		{"latest/meta-data/instance-id", strings.Replace(auth, "%26", "&", 1), 200, id},
	} {
		status, body, h := s.do("GET", Prefix+x.path, x.auth, "", nil)
		if status != x.status || !strings.Contains(body, x.body) {
			t.Errorf("%s: %d %.300q", x.path, status, body)
		}
		if status == 401 && h.Get("Date") == "" {
			t.Errorf("%s: 401 without Date", x.path)
		}
	}
}

func TestURLsPointAtTheRack(t *testing.T) {
	s := newSite(t)
	id, _ := s.enlist()
	for _, x := range []struct{ forwarded, want string }{
		{"rack.example:5248", "http://rack.example:5248/"}, {"[fd00::1]:5248", "http://[fd00::1]:5248/"},
		{`evil"/><x>`, "http://127.0.0.1:"}, {"a b", "http://127.0.0.1:"}, {"10.0.0.9:5248, other", "http://10.0.0.9:5248/"},
	} {
		_, body, _ := s.do("GET", Prefix+"latest/by-id/"+id+"/?op=get_preseed", "", "", nil, "X-Forwarded-Host", x.forwarded)
		if !strings.Contains(body, "metadata_url: "+x.want) {
			t.Errorf("%q: %s", x.forwarded, body)
		}
	}
}

func multipartBody(t *testing.T, fields map[string]string, files map[string][]byte, encode bool) (string, []byte) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part := func(h textproto.MIMEHeader, data []byte) {
		if encode {
			h.Set("Content-Transfer-Encoding", "base64")
			data = []byte(base64.StdEncoding.EncodeToString(data))
		}
		p, err := w.CreatePart(h)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = p.Write(data)
	}
	for k, v := range fields {
		part(textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf(`form-data; name=%q`, k)}}, []byte(v))
	}
	for k, v := range files {
		part(textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf(`form-data; name=%q; filename=%q`, k, k)}}, v)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), b.Bytes()
}

func TestSignals(t *testing.T) {
	s := newSite(t)
	id, c := s.enlist()
	inventory, err := json.Marshal(map[string]any{"api_version": "1.0", "api_extensions": []string{"resources", "resources_v2", "api_os", "resources_system", "resources_usb_pci"},
		"resources": map[string]any{"cpu": map[string]any{"total": 4}, "memory": map[string]any{"total": 1 << 30}}})
	if err != nil {
		t.Fatal(err)
	}
	signal := func(status int, fields map[string]string, files map[string][]byte) {
		t.Helper()
		fields["op"] = "signal"
		typ, body := multipartBody(t, fields, files, true)
		if got, text, _ := s.do("POST", Prefix+"2012-03-01/", c.header(time.Now()), typ, body); got != status || status == 200 && text != "OK" {
			t.Fatalf("%v: %d %s", fields, got, text)
		}
	}
	signal(400, map[string]string{"status": "MAGIC"}, nil)
	signal(400, map[string]string{}, nil)
	signal(400, map[string]string{"status": "WORKING", "exit_status": "x"}, nil)
	signal(200, map[string]string{"status": "WORKING", "name": "50-maas-01-commissioning", "exit_status": "0"}, map[string][]byte{"50-maas-01-commissioning.out": inventory})
	if got, _, _ := s.do("POST", Prefix+"2012-03-01/", "", "application/x-www-form-urlencoded", []byte("op=signal&status=OK")); got != 401 {
		t.Fatalf("a signal of nobody: %d", got)
	}
	if got, _, _ := s.do("POST", Prefix+"2012-03-01/", c.header(time.Now()), "application/x-www-form-urlencoded", []byte("op=fly")); got != 400 {
		t.Fatalf("op=fly: %d", got)
	}
	if got, text, _ := s.do("POST", Prefix+"2012-03-01/?op=signal", c.header(time.Now()), "application/x-www-form-urlencoded", []byte("status=OK")); got != 200 || text != "OK" {
		t.Fatalf("%d %s", got, text)
	}
	b, err := s.p.Node(provisioner.WithActor(context.Background(), provisioner.SystemActor()), id)
	if err != nil || b.Node.Status != storage.StatusNew || b.Node.CPUCount != 4 || b.Node.Memory != 1024 {
		t.Fatalf("%+v %v", b.Node, err)
	}
}

func TestStatusWebhook(t *testing.T) {
	s := newSite(t)
	id, c := s.enlist()
	event := func(body string) int {
		status, _, _ := s.do("POST", Prefix+"status/"+id, c.header(time.Now()), "application/json", []byte(body))
		return status
	}
	for body, want := range map[string]int{
		`{"event_type":"start","origin":"cloudinit","name":"modules-final","description":"d","timestamp":1.5}`: 204,
		`{"event_type":"start","origin":"cloudinit","name":"x"}`:                                               400,
		`{"event_type":"start","origin":"cloudinit","name":"x","description":"é"}`:                             400,
		`[]`: 400, `nonsense`: 400, ``: 400,
		`{"event_type":"finish","origin":"curtin","name":"a/b","description":"d","files":[{"path":"/x","encoding":"base64","content":"***"}]}`: 400,
		`{"event_type":"finish","origin":"curtin","name":"a/b","description":"d","files":[{"path":"/x","encoding":"base64","content":null}]}`:  204,
	} {
		if got := event(body); got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
	}
	if got, _, _ := s.do("POST", Prefix+"status/"+id, "", "", []byte(`{}`)); got != 401 {
		t.Errorf("without credentials: %d", got)
	}
	if got, _, _ := s.do("POST", Prefix+"status/"+id, `OAuth oauth_token="gone"`, "", []byte(`{"event_type":"start","origin":"o","name":"n","description":"d"}`)); got != 204 {
		t.Errorf("an unknown token: %d", got)
	}
	if got := event(`{"event_type":"finish","origin":"cloudinit","name":"modules-final","description":"broken","result":"FAIL"}`); got != 204 {
		t.Error(got)
	}
	b, err := s.p.Node(provisioner.WithActor(context.Background(), provisioner.SystemActor()), id)
	if err != nil || b.Node.Status != storage.StatusFailedCommissioning || b.Node.ErrorDescription != "'cloudinit' broken" {
		t.Fatalf("%v %q %v", b.Node.Status, b.Node.ErrorDescription, err)
	}
}

func TestOversize(t *testing.T) {
	s := newSite(t)
	_, c := s.enlist()
	body := append([]byte(`{"event_type":"`), bytes.Repeat([]byte("a"), maxEvent+1)...)
	if got, _, _ := s.do("POST", Prefix+"status/x", c.header(time.Now()), "", body); got != 413 {
		t.Errorf("%d", got)
	}
}

// The script is given to a shell as it is: it must parse, whatever host the request came to.
func TestRunScript(t *testing.T) {
	for _, rack := range []string{"http://10.0.0.1:5248", "http://x'; rm -rf / #", "http://$(id)`id`\n"} {
		b := runScript(rack, enlistPath)
		cmd := exec.Command("/bin/sh", "-n")
		cmd.Stdin = bytes.NewReader(b)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v %s\n%s", err, out, b)
		}
		probe := exec.Command("/bin/sh", "-c", strings.Split(string(b), "case ")[0]+`printf %s "$RACK"`)
		out, err := probe.Output()
		if err != nil || string(out) != rack {
			t.Errorf("%q became %q (%v)", rack, out, err)
		}
	}
}

func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"event_type":"start","origin":"o","name":"n","description":"d","files":[{"path":"a","encoding":"base64","content":"eA=="}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := parseEvent(b); ok && e.Files == nil {
			t.Error("no files map")
		}
	})
}

func FuzzForm(f *testing.F) {
	f.Add("multipart/form-data; boundary=x", []byte("--x\r\nContent-Disposition: form-data; name=\"op\"\r\n\r\nsignal\r\n--x--"))
	f.Add("application/x-www-form-urlencoded", []byte("op=signal&status=OK"))
	f.Fuzz(func(t *testing.T, typ string, body []byte) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.Header.Set("Content-Type", typ)
		form, err := readForm(httptest.NewRecorder(), r, 1<<20)
		if err == nil {
			_, _ = form.signal()
		}
	})
}
