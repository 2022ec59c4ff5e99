package server_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server"
	"github.com/ingot-metal/ingot/server/oauth1"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

var unique atomic.Int64

// oauthParams are good PLAINTEXT parameters for a key.
func oauthParams(key string) map[string]string {
	p := strings.Split(key, ":")
	return map[string]string{"oauth_version": "1.0", "oauth_nonce": fmt.Sprintf("auth-%d", unique.Add(1)), "oauth_timestamp": fmt.Sprint(time.Now().Unix()),
		"oauth_consumer_key": p[0], "oauth_token": p[1], "oauth_signature_method": "PLAINTEXT", "oauth_signature": "&" + p[2]}
}

func oauthHeader(params map[string]string) string {
	var parts []string
	for k, v := range params {
		parts = append(parts, k+`="`+oauth1.Escape(v)+`"`)
	}
	return "OAuth " + strings.Join(parts, ", ")
}

func TestOAuthFailures(t *testing.T) {
	e := servertest.New(t)
	parts := strings.Split(e.User.Key, ":")
	old := fmt.Sprint(time.Now().Add(-301 * time.Second).Unix())
	for name, c := range map[string]struct {
		change func(p map[string]string)
		status int
		text   string // a regular expression for the whole body
	}{
		"good":       {func(map[string]string) {}, 200, `(?s).*"username": "user".*`},
		"no version": {func(p map[string]string) { delete(p, "oauth_version") }, 200, `(?s).*`},
		"realm":      {func(p map[string]string) { p["realm"] = "MAAS, x" }, 200, `(?s).*`},
		"299 seconds old": {func(p map[string]string) {
			p["oauth_timestamp"] = fmt.Sprint(time.Now().Add(-295 * time.Second).Unix())
		}, 200, `(?s).*`},
		"in the future":      {func(p map[string]string) { p["oauth_timestamp"] = fmt.Sprint(time.Now().Add(time.Hour).Unix()) }, 200, `(?s).*`},
		"unknown consumer":   {func(p map[string]string) { p["oauth_consumer_key"] = "nobody" }, 401, `Authorization Error: Invalid API key\.`},
		"unknown token":      {func(p map[string]string) { p["oauth_token"] = "KEY" }, 401, `Authorization Error: 'Invalid access token: KEY'`},
		"other's consumer":   {func(p map[string]string) { p["oauth_consumer_key"] = strings.Split(e.Admin.Key, ":")[0] }, 401, `Authorization Error: 'Invalid access token: ` + parts[1] + `'`},
		"quotes in token":    {func(p map[string]string) { p["oauth_token"] = "a'b\n" }, 401, `Authorization Error: "Invalid access token: a'b\\n"`},
		"long token":         {func(p map[string]string) { p["oauth_token"] = strings.Repeat("x", 2000) }, 401, `Forbidden`},
		"wrong secret":       {func(p map[string]string) { p["oauth_signature"] = "&wrong" }, 401, `Authorization Error: 'Invalid signature.*'`},
		"consumer secret":    {func(p map[string]string) { p["oauth_signature"] = "x&" + parts[2] }, 401, `Authorization Error: 'Invalid signature.*'`},
		"garbage HMAC":       {func(p map[string]string) { p["oauth_signature_method"] = "HMAC-SHA1" }, 401, `Authorization Error: 'Invalid signature.*'`},
		"other method":       {func(p map[string]string) { p["oauth_signature_method"] = "RSA-SHA1" }, 401, `Authorization Error: 'Signature method RSA-SHA1 not supported.*'`},
		"other version":      {func(p map[string]string) { p["oauth_version"] = "2.0" }, 401, `Authorization Error: 'OAuth version 2\.0 not supported\.'`},
		"old":                {func(p map[string]string) { p["oauth_timestamp"] = old }, 401, `Authorization Error: 'Expired timestamp: given ` + old + ` and now \d+ has a greater difference than threshold 300'`},
		"timestamp text":     {func(p map[string]string) { p["oauth_timestamp"] = "now" }, 400, `Invalid timestamp.*`},
		"timestamp negative": {func(p map[string]string) { p["oauth_timestamp"] = "-5" }, 400, `Invalid timestamp.*`},
		"timestamp huge":     {func(p map[string]string) { p["oauth_timestamp"] = "99999999999999999999999" }, 400, `Invalid timestamp.*`},
		"no nonce":           {func(p map[string]string) { delete(p, "oauth_nonce") }, 401, `Forbidden`},
		"no timestamp":       {func(p map[string]string) { delete(p, "oauth_timestamp") }, 401, `Forbidden`},
		"no consumer":        {func(p map[string]string) { delete(p, "oauth_consumer_key") }, 401, `Forbidden`},
		"no token":           {func(p map[string]string) { p["oauth_token"] = "" }, 401, `Forbidden`},
		"no signature":       {func(p map[string]string) { delete(p, "oauth_signature") }, 401, `Forbidden`},
		"no method":          {func(p map[string]string) { delete(p, "oauth_signature_method") }, 401, `Forbidden`},
	} {
		p := oauthParams(e.User.Key)
		c.change(p)
		a := e.Anon.Send("GET", "users/?op=whoami", "", nil, "Authorization", oauthHeader(p))
		if a.Status != c.status || !regexp.MustCompile(`^(?:`+c.text+`)$`).MatchString(a.Text()) {
			t.Errorf("%s: %d %s", name, a.Status, a.Text())
		}
		if challenge := a.Header.Get("WWW-Authenticate"); (a.Status == 401) != (challenge == `OAuth realm="OAuth"`) {
			t.Errorf("%s: %d with challenge %q", name, a.Status, challenge)
		}
		if a.Header.Get("Date") == "" {
			t.Errorf("%s: no Date", name)
		}
		if strings.Contains(a.Text(), parts[2]) {
			t.Errorf("%s: the answer holds the secret", name)
		}
	}
	for _, h := range []string{"", "OAuth", "OAuth ,,,", "Basic dXNlcjp1c2Vy", "Bearer x", `OAuth oauth_token="`, "\xff\xfe"} {
		if a := e.Anon.Send("GET", "users/?op=whoami", "", nil, "Authorization", h); a.Status != 401 || a.Text() != "Forbidden" {
			t.Errorf("%q: %d %s", h, a.Status, a.Text())
		}
	}
	if strings.Contains(e.Log.String(), parts[2]) {
		t.Error("the log holds the secret")
	}
}

func TestReplayIsRefused(t *testing.T) {
	e := servertest.New(t)
	for _, method := range []string{"GET", "POST"} {
		h := oauthHeader(oauthParams(e.User.Key))
		path := "users/?op=whoami"
		if method == "POST" {
			path = "account/?op=create_authorisation_token"
		}
		if a := e.Anon.Send(method, path, "", nil, "Authorization", h); a.Status != 200 {
			t.Fatalf("%s: %d %s", method, a.Status, a.Text())
		}
		a := e.Anon.Send(method, path, "", nil, "Authorization", h)
		if a.Status != 401 || !strings.HasPrefix(a.Text(), "Authorization Error: 'Nonce already used: auth-") {
			t.Errorf("%s again: %d %s", method, a.Status, a.Text())
		}
	}
	// A bad signature does not use the nonce up.
	p := oauthParams(e.User.Key)
	good := p["oauth_signature"]
	p["oauth_signature"] = "&wrong"
	e.Anon.Send("GET", "users/?op=whoami", "", nil, "Authorization", oauthHeader(p))
	p["oauth_signature"] = good
	if a := e.Anon.Send("GET", "users/?op=whoami", "", nil, "Authorization", oauthHeader(p)); a.Status != 200 {
		t.Errorf("after a forged request with its nonce: %d %s", a.Status, a.Text())
	}
}

func TestReplayAfterRestart(t *testing.T) {
	dsn := storagetest.SQLiteDSN(t)
	ctx := context.Background()
	var headers []string
	for round := range 2 {
		db, err := storage.Open(ctx, dsn, storage.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		p := provisioner.New(provisioner.Config{DB: db})
		key, _, err := p.Bootstrap(ctx, "admin", "pw")
		if err != nil {
			t.Fatal(err)
		}
		s, err := server.New(server.Config{Provisioner: p})
		if err != nil {
			t.Fatal(err)
		}
		send := func(h string) int {
			r, _ := http.NewRequest("GET", "http://x/MAAS/api/2.0/users/?op=whoami", nil)
			r.Header.Set("Authorization", h)
			w := newRecorder()
			s.Handler().ServeHTTP(w, r)
			return w.status
		}
		if round == 0 {
			for range 3 {
				h := oauthHeader(oauthParams(key))
				if got := send(h); got != 200 {
					t.Fatal(got)
				}
				headers = append(headers, h)
			}
		} else {
			for _, h := range headers {
				if got := send(h); got != 401 {
					t.Errorf("a replay after the restart: %d", got)
				}
			}
			if got := send(oauthHeader(oauthParams(key))); got != 200 {
				t.Errorf("a fresh request after the restart: %d", got)
			}
		}
		p.Flush()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

type recorder struct {
	header http.Header
	status int
}

func newRecorder() *recorder                        { return &recorder{header: http.Header{}} }
func (r *recorder) Header() http.Header             { return r.header }
func (r *recorder) WriteHeader(status int)          { r.status = status }
func (r *recorder) Write(b []byte) (n int, e error) { return len(b), nil }

// hmacHeader signs as RFC 5849 says, written apart from the server's code.
func hmacHeader(method, base, key string, query, form url.Values) string {
	parts := strings.Split(key, ":")
	p := oauthParams(key)
	p["oauth_signature_method"] = "HMAC-SHA1"
	delete(p, "oauth_signature")
	var pairs []string
	enc := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	for k, v := range p {
		pairs = append(pairs, enc(k)+"="+enc(v))
	}
	for _, values := range []url.Values{query, form} {
		for k, vs := range values {
			for _, v := range vs {
				pairs = append(pairs, enc(k)+"="+enc(v))
			}
		}
	}
	sort.Strings(pairs)
	m := hmac.New(sha1.New, []byte("&"+parts[2]))
	_, _ = io.WriteString(m, method+"&"+enc(base)+"&"+enc(strings.Join(pairs, "&")))
	p["oauth_signature"] = base64.StdEncoding.EncodeToString(m.Sum(nil))
	return oauthHeader(p)
}

func TestHMAC(t *testing.T) {
	e := servertest.New(t)
	base := e.URL + "/MAAS/api/2.0/"
	q := url.Values{"op": {"whoami"}, "x": {"a b", "ä+&="}}
	h := hmacHeader("GET", base+"users/", e.User.Key, q, nil)
	if a := e.Anon.Send("GET", "users/?"+q.Encode(), "", nil, "Authorization", h); a.Status != 200 {
		t.Errorf("GET: %d %s", a.Status, a.Text())
	}
	h = hmacHeader("GET", base+"users/", e.User.Key, q, nil)
	if a := e.Anon.Send("GET", "users/?op=whoami", "", nil, "Authorization", h); a.Status != 401 || !strings.Contains(a.Text(), "Invalid signature") {
		t.Errorf("another query: %d %s", a.Status, a.Text())
	}
	form := url.Values{"name": {"my key"}}
	const ct = "application/x-www-form-urlencoded"
	opq := url.Values{"op": {"create_authorisation_token"}}
	h = hmacHeader("POST", base+"account/", e.User.Key, opq, form)
	if a := e.Anon.Send("POST", "account/?"+opq.Encode(), ct, strings.NewReader(form.Encode()), "Authorization", h); a.Status != 200 || !strings.Contains(a.Text(), "my key") {
		t.Errorf("POST: %d %s", a.Status, a.Text())
	}
	h = hmacHeader("POST", base+"account/", e.User.Key, opq, form)
	if a := e.Anon.Send("POST", "account/?"+opq.Encode(), ct, strings.NewReader("name=other"), "Authorization", h); a.Status != 401 {
		t.Errorf("another form: %d %s", a.Status, a.Text())
	}
}

func TestOAuthInQueryAndForm(t *testing.T) {
	e := servertest.New(t)
	v := url.Values{}
	for k, x := range oauthParams(e.User.Key) {
		v.Set(k, x)
	}
	if a := e.Anon.Get("users/?op=whoami&" + v.Encode()); a.Status != 200 {
		t.Errorf("query: %d %s", a.Status, a.Text())
	}
	var form []string
	for k, x := range oauthParams(e.User.Key) {
		form = append(form, k, x)
	}
	if a := e.Anon.Post("account/", append(form, "op", "create_authorisation_token")...); a.Status != 200 {
		t.Errorf("form: %d %s", a.Status, a.Text())
	}
}

func TestWhoMayCall(t *testing.T) {
	e := servertest.New(t)
	deactivated := e.AddUser(t, "gone", true)
	deactivated.User.IsActive = false
	if err := e.DB.Write(context.Background(), func(tx *storage.Tx) error {
		if err := tx.UpdateUser(deactivated.User); err != nil {
			return err
		}
		_, err := tx.Exec("insert into nodes (id, system_id, hostname, domain_id, zone_id, created, updated) values (1, 'abcdef', 'h', 0, 1, 1, 1)")
		if err != nil {
			return err
		}
		return tx.InsertNodeToken(&storage.NodeToken{NodeID: 1, ConsumerKey: "nc", TokenKey: "nt", TokenSecret: "ns"})
	}); err != nil {
		t.Fatal(err)
	}
	const notAllowed = "User is not allowed access to this API."
	if a := deactivated.Get("users/?op=whoami"); a.Status != 403 || a.Text() != notAllowed {
		t.Errorf("inactive: %d %s", a.Status, a.Text())
	}
	if a := e.Anon.Send("GET", "machines/", "", nil, "Authorization", oauthHeader(oauthParams("nc:nt:ns"))); a.Status != 403 || a.Text() != notAllowed {
		t.Errorf("a machine: %d %s", a.Status, a.Text())
	}
	for _, c := range []struct {
		who    *servertest.Caller
		method string
		path   string
		form   []string
		status int
		text   string
	}{
		{e.Anon, "GET", "version/", nil, 200, ""},
		{e.Anon, "GET", "describe/", nil, 200, ""},
		{e.Anon, "GET", "users/?op=whoami", nil, 401, "Forbidden"},
		{e.Anon, "GET", "machines/?op=allocate", nil, 400, "Unrecognised signature: method=GET op=allocate"},
		{e.Anon, "GET", "machines/", nil, 400, "Unrecognised signature: method=GET op=None"},
		{e.Anon, "POST", "zones/", nil, 401, "Forbidden"},
		{e.User, "GET", "users/?op=whoami", nil, 200, ""},
		{e.User, "GET", "users/?op=nonsense", nil, 400, "Unrecognised signature: method=GET op=nonsense"},
		{e.User, "POST", "users/", []string{"username", "x"}, 403, "User does not have permission to perform this operation. The user should have permission 'can_edit_identities'"},
		{e.User, "POST", "maas/?op=set_config", []string{"name", "kernel_opts", "value", "x"}, 403, "User does not have permission to perform this operation. The user should have permission 'can_edit_configurations'"},
		{e.Admin, "POST", "maas/?op=set_config", []string{"name", "kernel_opts", "value", "x"}, 200, "OK"},
		{e.User, "GET", "maas/op-get_config?name=kernel_opts", nil, 200, `"x"`},
		{e.User, "GET", "maas/?op=get_config", nil, 400, "No provided name!"},
		{e.User, "GET", "maas/?op=get_config&name=nope", nil, 400, ""},
	} {
		var a servertest.Answer
		if c.method == "GET" {
			a = c.who.Get(c.path)
		} else {
			a = c.who.Post(c.path, c.form...)
		}
		if a.Status != c.status || c.text != "" && strings.TrimSpace(a.Text()) != c.text {
			t.Errorf("%s %s as %q: %d %s", c.method, c.path, c.who.User.Username, a.Status, a.Text())
		}
	}
	// Bad credentials on a page that needs none.
	if a := e.Anon.Send("GET", "version/", "", nil, "Authorization", oauthHeader(oauthParams("a:b:c"))); a.Status != 200 {
		t.Errorf("version with a bad key: %d", a.Status)
	}
}

// browser keeps cookies.
type browser struct {
	t   *testing.T
	url string
	c   *http.Client
}

func newBrowser(t *testing.T, e *servertest.Env) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, e.URL, &http.Client{Jar: jar}}
}

func (b *browser) do(method, path string, form url.Values, headers ...string) (int, string, http.Header) {
	b.t.Helper()
	r, err := http.NewRequest(method, b.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := b.c.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(body), res.Header
}

func addPerson(t *testing.T, e *servertest.Env) {
	t.Helper()
	ctx := provisioner.WithActor(context.Background(), provisioner.SystemActor())
	if _, err := e.P.CreateUser(ctx, provisioner.UserSpec{Username: "eve", Email: "eve@x.org", Password: "right"}); err != nil {
		t.Fatal(err)
	}
}

func TestSession(t *testing.T) {
	e := servertest.New(t)
	addPerson(t, e)
	b := newBrowser(t, e)
	if s, body, _ := b.do("GET", "/MAAS/accounts/login/", nil); s != 200 || !strings.Contains(body, `"authenticated": false`) || !strings.Contains(body, `"no_users": false`) {
		t.Errorf("before: %d %s", s, body)
	}
	if s, _, _ := b.do("POST", "/MAAS/account/csrf/", url.Values{}); s != 403 {
		t.Errorf("csrf before: %d", s)
	}
	for name, form := range map[string]url.Values{"nothing": {}, "wrong": {"username": {"eve"}, "password": {"wrong"}}, "unknown": {"username": {"eva"}, "password": {"right"}}} {
		s, body, h := b.do("POST", "/MAAS/accounts/login/", form)
		if s != 400 || !strings.HasPrefix(body, "{") || len(h.Values("Set-Cookie")) > 0 {
			t.Errorf("%s: %d %s", name, s, body)
		}
	}
	s, _, h := b.do("POST", "/MAAS/accounts/login/", url.Values{"username": {"eve"}, "password": {"right"}})
	if s != 204 {
		t.Fatalf("login: %d", s)
	}
	for _, c := range h.Values("Set-Cookie") {
		if strings.HasPrefix(c, "sessionid=") && (!strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Lax")) {
			t.Errorf("cookie: %s", c)
		}
	}
	if s, _, _ := b.do("POST", "/MAAS/accounts/login/", url.Values{}); s != 204 {
		t.Errorf("login when logged in: %d", s)
	}
	if s, body, _ := b.do("GET", "/MAAS/api/2.0/users/?op=whoami", nil); s != 200 || !strings.Contains(body, `"username": "eve"`) {
		t.Errorf("whoami: %d %s", s, body)
	}
	const path = "/MAAS/api/2.0/account/?op=create_authorisation_token"
	for name, headers := range map[string][]string{"no token": nil, "wrong token": {"X-CSRFToken", "x"}, "empty": {"X-CSRFToken", ""}} {
		if s, body, _ := b.do("POST", path, url.Values{}, headers...); s != 403 || !strings.Contains(body, "CSRF") {
			t.Errorf("%s: %d %s", name, s, body)
		}
	}
	s, body, _ := b.do("POST", "/MAAS/account/csrf/", url.Values{})
	m := regexp.MustCompile(`"csrf": "(\w+)"`).FindStringSubmatch(body)
	if s != 200 || m == nil {
		t.Fatalf("csrf: %d %s", s, body)
	}
	if s, body, _ := b.do("POST", path, url.Values{}, "X-CSRFToken", m[1]); s != 200 {
		t.Errorf("with the header: %d %s", s, body)
	}
	if s, body, _ := b.do("POST", path, url.Values{"csrfmiddlewaretoken": {m[1]}}); s != 200 {
		t.Errorf("with the field: %d %s", s, body)
	}
	if s, _, _ := b.do("POST", "/MAAS/accounts/logout/", url.Values{}); s != 204 {
		t.Errorf("logout: %d", s)
	}
	if s, _, _ := b.do("GET", "/MAAS/api/2.0/users/?op=whoami", nil); s != 401 {
		t.Errorf("after the logout: %d", s)
	}
	for _, p := range []string{"/MAAS/accounts/logout/", "/MAAS/account/csrf/", "/MAAS/accounts/authenticate/"} {
		if s, _, h := b.do("GET", p, nil); s != 405 || h.Get("Allow") != "POST" {
			t.Errorf("GET %s: %d", p, s)
		}
	}
}

func TestAuthenticate(t *testing.T) {
	e := servertest.New(t)
	addPerson(t, e)
	post := func(pairs ...string) servertest.Answer { return e.Anon.Post("/MAAS/accounts/authenticate/", pairs...) }
	var a, b, c map[string]string
	post("username", "eve", "password", "right").Into(t, &a)
	post("username", "eve", "password", "right").Into(t, &b)
	post("username", "eve", "password", "right", "consumer", "mine").Into(t, &c)
	if len(a["consumer_key"]) != 18 || len(a["token_key"]) != 18 || len(a["token_secret"]) != 32 || a["name"] != "MAAS consumer" {
		t.Errorf("first: %v", a)
	}
	if a["token_key"] != b["token_key"] || a["token_key"] == c["token_key"] || c["name"] != "mine" {
		t.Errorf("reuse: %v %v %v", a, b, c)
	}
	key := a["consumer_key"] + ":" + a["token_key"] + ":" + a["token_secret"]
	if got := e.Anon.Send("GET", "users/?op=whoami", "", nil, "Authorization", servertest.Authorization(key)); got.Status != 200 {
		t.Errorf("the key does not work: %d %s", got.Status, got.Text())
	}
	if got := post("username", "eve"); got.Status != 403 || got.Text() != "" {
		t.Errorf("no password: %d %q", got.Status, got.Text())
	}
	for i := range 10 {
		got := post("username", "eve", "password", "wrong")
		if got.Status == 429 {
			if i < 3 || got.Header.Get("Retry-After") == "" {
				t.Errorf("refused at guess %d: %v", i, got.Header)
			}
			return
		}
		if got.Status != 403 || got.Text() != "" {
			t.Errorf("wrong: %d %q", got.Status, got.Text())
		}
	}
	t.Error("ten guesses without a wait")
}

func TestIdentityResources(t *testing.T) {
	e := servertest.New(t)
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMkGHRrb7M3E6pYyjw5jJVkTXi5fjHQCWuI3pGOKSHKz joe@host"
	a := e.User.Post("account/prefs/sshkeys/", "key", key)
	var k struct {
		ID  int64
		Key string
	}
	a.Into(t, &k)
	if a.Status != 201 || k.Key != key || strings.Contains(a.Text(), "resource_uri") {
		t.Errorf("add: %d %s", a.Status, a.Text())
	}
	one := fmt.Sprintf("account/prefs/sshkeys/%d/", k.ID)
	for _, c := range []struct {
		name   string
		a      servertest.Answer
		status int
		text   string
	}{
		{"key twice", e.User.Post("account/prefs/sshkeys/", "key", key), 400, `"key"`},
		{"bad key", e.User.Post("account/prefs/sshkeys/", "key", "bad"), 400, "Invalid"},
		{"no key", e.User.Post("account/prefs/sshkeys/"), 400, "This field is required."},
		{"two lines", e.User.Post("account/prefs/sshkeys/", "key", key+"\n"+key), 400, "Invalid"},
		{"for another", e.User.Post("account/prefs/sshkeys/", "key", key, "user", "admin"), 400, "Only administrators"},
		{"for nobody", e.Admin.Post("account/prefs/sshkeys/", "key", key, "user", "nobody"), 400, "Supplied username"},
		{"list", e.User.Get("account/prefs/sshkeys/"), 200, `"keysource": ""`},
		{"read", e.Admin.Get(one), 200, `"resource_uri": "/MAAS/api/2.0/` + one},
		{"delete another's", e.Admin.Delete(one), 403, "Can't delete a key you don't own."},
		{"delete", e.User.Delete(one), 204, ""},
		{"read none", e.User.Get(one), 404, ""},
		{"no password", e.Admin.Post("users/", "username", "n", "email", "n@x.org", "is_superuser", "0"), 400, "No provided password!"},
		{"create", e.Admin.Post("users/", "username", "n.x", "email", "n@x.org", "is_superuser", "1", "password", "p", "key", key), 200, `"is_superuser": true`},
		{"create twice", e.Admin.Post("users/", "username", "n.x", "email", "n@x.org", "is_superuser", "1", "password", "p"), 400, "A user with that username already exists."},
		{"user", e.User.Get("users/n.x/"), 200, `"resource_uri": "/MAAS/api/2.0/users/n.x/"`},
		{"users", e.User.Get("users/"), 200, `"username": "n.x"`},
		{"no user", e.User.Get("users/nobody/"), 404, "No User matches the given query."},
		{"delete as user", e.User.Delete("users/n.x/"), 403, "can_edit_identities"},
		{"delete unknown", e.Admin.Delete("users/nobody/"), 204, ""},
		{"delete self", e.Admin.Delete("users/admin/"), 400, "cannot self-delete"},
		{"no heir", e.Admin.Delete("users/n.x/?transfer_resources_to=zz"), 404, ""},
		{"delete user", e.Admin.Delete("users/n.x/?transfer_resources_to=user"), 204, ""},
		{"tokens", e.User.Get("account/?op=list_authorisation_tokens"), 200, e.User.Key},
		{"no token key", e.User.Post("account/?op=delete_authorisation_token"), 400, "No provided token_key!"},
		{"unknown token", e.User.Post("account/?op=delete_authorisation_token", "token_key", "x"), 404, ""},
		{"rename", e.User.Post("account/?op=update_token_name", "token", e.User.Key, "name", "new"), 202, "Accepted"},
		{"NUL in a value", e.Admin.Post("users/", "username", "a", "email", "a@x.org", "is_superuser", "0", "password", "a\x00b"), 400, ""},
		{"NUL in a filter", e.User.Get("events/?op=query&hostname=%00"), 400, ""},
		{"NUL in a name", e.User.Post("account/?op=update_token_name", "token", "a\x00", "name", "new"), 400, ""},
		{"NUL in a login", e.Anon.Post("/MAAS/accounts/authenticate/", "username", "a\x00", "password", "x"), 400, ""},
		{"rename unknown", e.User.Post("account/?op=update_token_name", "token", "x", "name", "new"), 404, ""},
	} {
		if c.a.Status != c.status || !strings.Contains(c.a.Text(), c.text) {
			t.Errorf("%s: %d %s", c.name, c.a.Status, c.a.Text())
		}
		if c.status == 204 && c.a.Header.Get("Content-Type") == "" {
			t.Errorf("%s: no content type", c.name)
		}
	}
	own := strings.Split(e.User.Key, ":")[1]
	if a := e.User.Post("account/?op=delete_authorisation_token", "token_key", own); a.Status != 204 {
		t.Errorf("delete the own key: %d %s", a.Status, a.Text())
	}
	if a := e.User.Get("users/?op=whoami"); a.Status != 401 {
		t.Errorf("with the deleted key: %d", a.Status)
	}
}

func TestEventsQuery(t *testing.T) {
	e := servertest.New(t)
	var ids []int64
	if err := e.DB.Write(context.Background(), func(tx *storage.Tx) error {
		ids = nil
		for i := range 6 {
			ev := storage.Event{Type: "DEPLOYED", Level: 20, Username: "user", NodeHostname: "h", Description: fmt.Sprint(i)}
			if err := tx.InsertEvent(&ev); err != nil {
				return err
			}
			ids = append(ids, ev.ID)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	type page struct {
		Count  int64
		Events []struct {
			ID                              int64
			Type, Level, Username, Hostname string
			Node                            *string
		}
		Next string  `json:"next_uri"`
		Prev *string `json:"prev_uri"`
	}
	get := func(q string) (p page) {
		t.Helper()
		a := e.User.Get("events/?op=query" + q)
		if a.Status != 200 {
			t.Fatalf("%s: %d %s", q, a.Status, a.Text())
		}
		a.Into(t, &p)
		return p
	}
	p := get("&limit=2&hostname=h&nonsense=1")
	if p.Count != 2 || p.Events[0].ID != ids[5] || p.Events[0].Type != "Deployed" || p.Events[0].Level != "INFO" || p.Events[0].Node != nil {
		t.Errorf("%+v", p)
	}
	if want := fmt.Sprintf("/MAAS/api/2.0/events/?after=%d&hostname=h&limit=2&op=query", ids[5]); p.Next != want {
		t.Errorf("next %s, want %s", p.Next, want)
	}
	if want := fmt.Sprintf("/MAAS/api/2.0/events/?before=%d&hostname=h&limit=2&op=query", ids[4]); p.Prev == nil || *p.Prev != want {
		t.Errorf("prev %v, want %s", p.Prev, want)
	}
	if p := get(fmt.Sprintf("&after=%d&limit=2", ids[1])); p.Count != 2 || p.Events[0].ID != ids[3] || p.Events[1].ID != ids[2] {
		t.Errorf("after: %+v", p)
	}
	if p := get(fmt.Sprintf("&before=%d", ids[0])); p.Count != 0 || p.Events == nil || p.Prev != nil || !strings.Contains(p.Next, fmt.Sprintf("after=%d", ids[0]-1)) {
		t.Errorf("before the first: %+v", p)
	}
	if p := get(fmt.Sprintf("&after=%d", ids[5])); p.Count != 0 || p.Prev == nil || !strings.Contains(*p.Prev, fmt.Sprintf("before=%d", ids[5]+1)) || !strings.Contains(p.Next, fmt.Sprintf("after=%d", ids[5])) {
		t.Errorf("after the last: %+v", p)
	}
	if p := get("&limit=0&level=DEBUG&owner=user"); p.Count != 1 {
		t.Errorf("limit 0: %+v", p)
	}
	for q, text := range map[string]string{
		"&limit=1001":                    "Requested number of events 1001 is greater than limit: 1000",
		"&before=1&after=2":              "There is undetermined behaviour when both `after` and `before` are specified.",
		"&level=x":                       "Unrecognised log level: x",
		"&mac_address=A&mac_address=B":   "Invalid MAC address(es): A, B",
		"&limit=99999999999999999999999": "",
	} {
		if a := e.User.Get("events/?op=query" + q); a.Status != 400 || text != "" && a.Text() != text {
			t.Errorf("%s: %d %s", q, a.Status, a.Text())
		}
	}
}
