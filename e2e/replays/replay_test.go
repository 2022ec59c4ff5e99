package replays

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/provisioner/power/drivers"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

const root = "/MAAS/api/2.0/"

// client sends requests as one of the clients does: its headers, its way to sign, its bodies.
type client struct {
	t       *testing.T
	e       *servertest.Env
	key     string // consumer:token:secret, "" for nobody
	headers []string
	sign    func(c *client, method, uri, contentType, body string) string
}

// newSite is a server for one client, who is its administrator.
func newSite(t *testing.T) *servertest.Env {
	return servertest.New(t, func(p *servertest.ProvisionerConfig, _ *servertest.ServerConfig) { p.Power = drivers.All() })
}

// send writes one request over a connection of its own: nothing is added that the client does not send.
func (c *client) send(method, path, contentType, body string, headers ...string) *answer {
	c.t.Helper()
	if !strings.HasPrefix(path, "/") {
		path = root + path
	}
	host := strings.TrimPrefix(c.e.URL, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host)
	all := slices.Concat(c.headers, headers)
	if contentType != "" {
		all = append(all, "Content-Type", contentType)
	}
	if c.key != "" {
		all = append(all, "Authorization", c.sign(c, method, c.e.URL+path, contentType, body))
	}
	if body != "" || method == "POST" || method == "PUT" {
		all = append(all, "Content-Length", strconv.Itoa(len(body)))
	}
	for i := 0; i+1 < len(all); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", all[i], all[i+1])
	}
	if _, err := io.WriteString(conn, b.String()+"\r\n"+body); err != nil {
		c.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return &answer{t: c.t, what: method + " " + path, status: res.StatusCode, reason: res.Status, header: res.Header, body: data}
}

var count atomic.Int64

func nonce() string { return fmt.Sprintf("%d%d", time.Now().UnixNano(), count.Add(1)) }

// plaintext signs as oauthlib, Ansible and the Go clients do; realm is what they put in front, if anything.
func plaintext(realm string) func(c *client, method, uri, contentType, body string) string {
	return func(c *client, _, _, _, _ string) string {
		p := strings.Split(c.key, ":")
		return fmt.Sprintf(`OAuth %soauth_nonce="%s", oauth_timestamp="%d", oauth_version="1.0", oauth_signature_method="PLAINTEXT", oauth_consumer_key="%s", oauth_token="%s", oauth_signature="%%26%s"`,
			realm, nonce(), time.Now().Unix(), p[0], p[1], p[2])
	}
}

// hmacSHA1 signs as the Cluster API provider's library does: method, address without query, and the sorted parameters, those of a
// urlencoded POST body included and those of a PUT body not.
func hmacSHA1(c *client, method, uri, contentType, body string) string {
	p := strings.Split(c.key, ":")
	u, err := url.Parse(uri)
	if err != nil {
		c.t.Fatal(err)
	}
	oauth := map[string]string{"oauth_nonce": nonce(), "oauth_timestamp": strconv.FormatInt(time.Now().Unix(), 10), "oauth_version": "1.0",
		"oauth_signature_method": "HMAC-SHA1", "oauth_consumer_key": p[0], "oauth_token": p[1]}
	var pairs []string
	add := func(k, v string) { pairs = append(pairs, rfc3986(k)+"="+rfc3986(v)) }
	for k, v := range oauth {
		add(k, v)
	}
	covered := []url.Values{u.Query()}
	if method == "POST" && contentType == formType {
		form, err := url.ParseQuery(body)
		if err != nil {
			c.t.Fatal(err)
		}
		covered = append(covered, form)
	}
	for _, values := range covered {
		for k, vs := range values {
			for _, v := range vs {
				add(k, v)
			}
		}
	}
	slices.Sort(pairs)
	u.RawQuery = ""
	base := method + "&" + rfc3986(u.String()) + "&" + rfc3986(strings.Join(pairs, "&"))
	mac := hmac.New(sha1.New, []byte("&"+p[2]))
	mac.Write([]byte(base))
	header := "OAuth "
	for _, k := range []string{"oauth_consumer_key", "oauth_nonce", "oauth_signature_method", "oauth_timestamp", "oauth_token", "oauth_version"} {
		header += k + `="` + rfc3986(oauth[k]) + `",`
	}
	return header + `oauth_signature="` + rfc3986(base64.StdEncoding.EncodeToString(mac.Sum(nil))) + `"`
}

func rfc3986(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// The bodies ----------------------------------------------------------------------------------------------------------------

const formType = "application/x-www-form-urlencoded"

// form is a urlencoded body of "key=value" pairs, sorted by key as Go's clients send it.
func form(pairs ...string) string {
	v := url.Values{}
	for _, p := range pairs {
		k, x, _ := strings.Cut(p, "=")
		v.Add(k, x)
	}
	return v.Encode()
}

const boundary = "===============4277013094414155843=="

// pythonType is how Python's e-mail package names its boundary: in quotes.
const pythonType = `multipart/form-data; boundary="` + boundary + `"`

// base64Parts is a multipart body as Python's e-mail package writes it: each part in base64, in lines of 76, text as text/plain and
// "@name" as a file. There is no line end behind the last boundary.
func base64Parts(pairs ...string) string {
	var b strings.Builder
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		kind, name := `text/plain; charset="utf-8"`, `name="`+k+`"`
		if file, ok := strings.CutPrefix(k, "@"); ok {
			kind, name = "application/octet-stream", `name="`+file+`"; filename="`+file+`"`
		}
		b.WriteString("--" + boundary + "\r\nContent-Type: " + kind + "\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: form-data; " + name + "\r\n\r\n")
		text := base64.StdEncoding.EncodeToString([]byte(v))
		for len(text) > 76 {
			b.WriteString(text[:76] + "\r\n")
			text = text[76:]
		}
		b.WriteString(text + "\r\n\r\n")
	}
	return b.String() + "--" + boundary + "--"
}

// plainParts is a multipart body without transfer encoding, as Ansible's modules send it.
func plainParts(pairs ...string) string {
	var b strings.Builder
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		b.WriteString("--" + boundary + "\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; name=\"" + k + "\"\r\n\r\n" + v + "\r\n")
	}
	return b.String() + "--" + boundary + "--"
}

// answer is held against what the client needs --------------------------------------------------------------------------------

type answer struct {
	t      *testing.T
	what   string
	status int
	reason string
	header http.Header
	body   []byte
}

func (a *answer) text() string { return string(a.body) }

// code wants a status and a Content-Type: the command line crashes on an answer without one.
func (a *answer) code(status int) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s\n got %d %s\nwant %d", a.what, a.status, a.body, status)
	}
	kind := a.header.Get("Content-Type")
	if kind == "" {
		a.t.Errorf("%s: %d without Content-Type", a.what, a.status)
	}
	if len(a.body) == 0 && strings.Contains(kind, "json") {
		a.t.Errorf("%s: an empty body called JSON", a.what)
	}
	return a
}

// is wants the whole body.
func (a *answer) is(status int, text string) *answer {
	a.t.Helper()
	if a.code(status); a.text() != text {
		a.t.Errorf("%s\n got %q\nwant %q", a.what, a.text(), text)
	}
	return a
}

// has wants parts of the body, its white space squeezed.
func (a *answer) has(status int, parts ...string) *answer {
	a.t.Helper()
	a.code(status)
	body := strings.Join(strings.Fields(a.text()), " ")
	for _, p := range parts {
		if !strings.Contains(body, p) {
			a.t.Errorf("%s\n got %s\nwant %q in it", a.what, body, p)
		}
	}
	return a
}

// at is the value at a path such as "links.0.mode".
func (a *answer) at(path string) any {
	a.t.Helper()
	var v any
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		a.t.Fatalf("%s\n got %d %s\nwhich is no JSON", a.what, a.status, a.body)
	}
	if path == "" {
		return v
	}
	for p := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// eq wants a value; a number is compared as it was written, so that 8192.0 is not 8192.
func (a *answer) eq(path string, want any) *answer {
	a.t.Helper()
	if a.status > 299 {
		a.t.Fatalf("%s\n got %d %s", a.what, a.status, a.body)
	}
	b, _ := json.Marshal(want)
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var plain any
	_ = d.Decode(&plain)
	if got := a.at(path); !reflect.DeepEqual(got, plain) {
		a.t.Errorf("%s\n got %v at %q\nwant %v\nin %s", a.what, got, path, plain, a.body)
	}
	return a
}

// str is the value at a path as text.
func (a *answer) str(path string) string {
	a.t.Helper()
	if a.status > 299 || a.at(path) == nil {
		a.t.Fatalf("%s\n got %d %s\nwith nothing at %q", a.what, a.status, a.body, path)
	}
	return fmt.Sprint(a.at(path))
}

// list is the body as a list.
func (a *answer) list() []any {
	a.t.Helper()
	l, ok := a.code(200).at("").([]any)
	if !ok {
		a.t.Fatalf("%s\n got %s\nwhich is no list", a.what, a.body)
	}
	return l
}

// find is the first object of a list with a value, as clients find things that they have listed.
func (a *answer) find(key string, value any) map[string]any {
	a.t.Helper()
	for _, x := range a.list() {
		if m, ok := x.(map[string]any); ok && fmt.Sprint(m[key]) == fmt.Sprint(value) {
			return m
		}
	}
	a.t.Fatalf("%s\n got %s\nwithout %s %v", a.what, a.body, key, value)
	return nil
}

// What no client does, but time --------------------------------------------------------------------------------------------------

// become puts a machine into a status, as its commissioning or installation would.
func become(t *testing.T, e *servertest.Env, systemID string, status storage.NodeStatus) {
	t.Helper()
	err := e.DB.Write(context.Background(), func(tx *storage.Tx) error {
		n, err := tx.LockNodeBySystemID(systemID)
		if err != nil {
			return err
		}
		from, owner := n.Status, n.OwnerID
		n.Status = status
		if status == storage.StatusReady {
			n.OwnerID = nil
			if n.CPUCount == 0 {
				n.CPUCount, n.Memory = 4, 8192
			}
			exit := int64(0)
			set := storage.ScriptSet{NodeID: n.ID, Type: storage.SetCommissioning}
			passed := storage.ScriptResult{Name: "50-maas-01-commissioning", Status: storage.ScriptPassed, ExitStatus: &exit}
			if err := tx.AddScriptSet(&set, []storage.ScriptResult{passed}); err != nil {
				return err
			}
		}
		return tx.UpdateNodeFrom(&n, from, owner)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addDisk gives a machine a disk, as its commissioning would.
func addDisk(t *testing.T, e *servertest.Env, systemID, name string) {
	t.Helper()
	err := e.DB.Write(context.Background(), func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if err != nil {
			return err
		}
		model, serial := "QEMU", systemID+name
		return tx.InsertBlockDevice(&storage.BlockDevice{NodeID: n.ID, Name: name, Type: "physical", Model: &model, Serial: &serial, Size: 100e9, BlockSize: 512})
	})
	if err != nil {
		t.Fatal(err)
	}
}
