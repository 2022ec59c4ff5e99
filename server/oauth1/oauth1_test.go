package oauth1

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestParseHeader(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want map[string]string
		ok   bool
	}{
		"python":        {`OAuth realm="", oauth_nonce="123", oauth_token="t%2Fa"`, map[string]string{"oauth_nonce": "123", "oauth_token": "t/a"}, true},
		"tight":         {`OAuth a="1",b="2"`, map[string]string{"a": "1", "b": "2"}, true},
		"no quotes":     {`oauth a=1 , b=%262`, map[string]string{"a": "1", "b": "&2"}, true},
		"comma inside":  {`OAuth realm="a, b=c",b="2,3"`, map[string]string{"b": "2,3"}, true},
		"bad escape":    {`OAuth a="%zz"`, map[string]string{"a": "%zz"}, true},
		"plus stays":    {`OAuth a="1+2"`, map[string]string{"a": "1+2"}, true},
		"open quote":    {`OAuth a="1`, map[string]string{"a": "1"}, true},
		"name only":     {`OAuth a,b=`, map[string]string{"a": "", "b": ""}, true},
		"empty":         {`OAuth`, map[string]string{}, true},
		"commas":        {`OAuth ,,,`, map[string]string{}, true},
		"twice":         {`OAuth a="1",a="2"`, nil, false},
		"other scheme":  {`Bearer a="1"`, nil, false},
		"nothing":       {``, nil, false},
		"scheme prefix": {`OAuth2 a="1"`, nil, false},
	} {
		got, ok := ParseHeader(c.in)
		if ok != c.ok || len(got) != len(c.want) {
			t.Errorf("%s: got %v, %v", name, got, ok)
		}
		for k, v := range c.want {
			if got[k] != v {
				t.Errorf("%s: %s is %q, want %q", name, k, got[k], v)
			}
		}
	}
}

func header(m map[string]string) string {
	var parts []string
	for k, v := range m {
		parts = append(parts, k+`="`+Escape(v)+`"`)
	}
	return "OAuth " + strings.Join(parts, ", ")
}

func params() map[string]string {
	return map[string]string{"oauth_consumer_key": "dpf43f3p2l4k3l03", "oauth_token": "nnch734d00sl2jdk", "oauth_signature_method": "HMAC-SHA1",
		"oauth_timestamp": "1191242096", "oauth_nonce": "kllo9940pd9333jh", "oauth_version": "1.0"}
}

// The example of the OAuth Core 1.0 specification, appendix A.5.
func TestHMACExample(t *testing.T) {
	r := httptest.NewRequest("GET", "http://photos.example.net/photos?file=vacation.jpg&size=original", nil)
	p := params()
	p["oauth_signature"] = "tR3+Ty81lMeYAr/Fid0kMTYa/WM="
	r.Header.Set("Authorization", header(p))
	c, ok := FromRequest(r)
	if !ok || !c.Supported() {
		t.Fatalf("no credentials: %+v", c)
	}
	if !c.Valid(r, "kd94hf93k423kf44", "pfkkdhi9sl3r4s00") {
		t.Error("the specification's example is refused")
	}
	for name, change := range map[string]func(){
		"query":  func() { r.URL.RawQuery = "file=vacation.jpg&size=small" },
		"path":   func() { r.URL.Path = "/photo" },
		"method": func() { r.Method = "POST" },
		"host":   func() { r.Host = "photos.example.org" },
	} {
		saved, url := *r, *r.URL
		change()
		if c.Valid(r, "kd94hf93k423kf44", "pfkkdhi9sl3r4s00") {
			t.Errorf("%s: a changed request is accepted", name)
		}
		*r = saved
		r.URL = &url
	}
	if c.Valid(r, "kd94hf93k423kf44", "other") || c.Valid(r, "", "pfkkdhi9sl3r4s00") {
		t.Error("a wrong secret is accepted")
	}
	r.Host = "10.0.0.1:5240"
	r.Header.Set("X-Forwarded-Host", "photos.example.net:80")
	if !c.Valid(r, "kd94hf93k423kf44", "pfkkdhi9sl3r4s00") {
		t.Error("behind a proxy it is refused")
	}
}

func TestHMACCoversForm(t *testing.T) {
	sign := func(form url.Values) *http.Request {
		r := httptest.NewRequest("POST", "http://h:5240/MAAS/api/2.0/tags/", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		r.PostForm = form
		p := params()
		r.Header.Set("Authorization", header(p))
		c := Credentials{Method: HMACSHA1, header: p}
		m := hmac.New(sha1.New, []byte("&s"))
		m.Write([]byte(c.bases(r)[0]))
		p["oauth_signature"] = base64.StdEncoding.EncodeToString(m.Sum(nil))
		r.Header.Set("Authorization", header(p))
		return r
	}
	form := url.Values{"name": {"a b+ä&="}, "x": {"2", "1"}}
	r := sign(form)
	c, ok := FromRequest(r)
	if !ok || !c.Valid(r, "", "s") {
		t.Error("refused")
	}
	r.PostForm = url.Values{"name": {"other"}, "x": {"2", "1"}}
	if c.Valid(r, "", "s") {
		t.Error("a changed form is accepted")
	}
}

// A PUT may be signed without its form, as one library does. Nothing else may.
func TestHMACOfPutMayLeaveOutForm(t *testing.T) {
	for _, x := range []struct {
		method        string
		covered, want bool
	}{{"PUT", true, true}, {"PUT", false, true}, {"POST", true, true}, {"POST", false, false}} {
		r := httptest.NewRequest(x.method, "http://example.com/zones/", nil)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.PostForm = url.Values{"name": {"a b"}}
		p := params()
		r.Header.Set("Authorization", header(p))
		c := Credentials{Method: HMACSHA1, header: p}
		text := x.method + "&" + Escape("http://example.com/zones/") + "&" + Escape(c.params(r, x.covered))
		m := hmac.New(sha1.New, []byte("&s"))
		m.Write([]byte(text))
		p["oauth_signature"] = base64.StdEncoding.EncodeToString(m.Sum(nil))
		r.Header.Set("Authorization", header(p))
		c, ok := FromRequest(r)
		if got := ok && c.Valid(r, "", "s"); got != x.want {
			t.Errorf("%s, form covered %v: %v", x.method, x.covered, got)
		}
	}
}

func TestPlaintext(t *testing.T) {
	for sig, want := range map[string]bool{"&s3cret": true, "s3cret": false, "&": false, "&s3cre": false, "x&s3cret": false, "%26s3cret": false} {
		p := params()
		p["oauth_signature_method"], p["oauth_signature"] = Plaintext, sig
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", header(p))
		c, ok := FromRequest(r)
		if !ok || c.Valid(r, "", "s3cret") != want {
			t.Errorf("%q: %v", sig, !want)
		}
	}
}

func TestWhereCredentialsAre(t *testing.T) {
	values := url.Values{}
	for k, v := range params() {
		values.Set(k, v)
	}
	values.Set("oauth_signature", "x")
	r := httptest.NewRequest("GET", "/?"+values.Encode(), nil)
	if c, ok := FromRequest(r); !ok || c.Nonce != "kllo9940pd9333jh" {
		t.Error("not found in the query")
	}
	r = httptest.NewRequest("POST", "/", nil)
	r.PostForm = values
	if _, ok := FromRequest(r); !ok {
		t.Error("not found in the form")
	}
	for _, name := range required {
		less := url.Values{}
		for k, v := range values {
			if k != name {
				less[k] = v
			}
		}
		if _, ok := FromRequest(httptest.NewRequest("GET", "/?"+less.Encode(), nil)); ok {
			t.Errorf("complete without %s", name)
		}
	}
	// Half in the header and half in the query is not complete.
	r = httptest.NewRequest("GET", "/?oauth_token=x&oauth_signature=y", nil)
	r.Header.Set("Authorization", `OAuth oauth_consumer_key="a",oauth_signature_method="PLAINTEXT",oauth_timestamp="1",oauth_nonce="n"`)
	if _, ok := FromRequest(r); ok {
		t.Error("halves make a whole")
	}
}

func TestTime(t *testing.T) {
	for in, ok := range map[string]bool{"0": true, "1191242096": true, " 12 ": true, "": false, "-1": false, "1.5": false, "x": false, "99999999999999999999": false, "9223372036854775807": false} {
		if _, err := (Credentials{Timestamp: in}).Time(); (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	for _, s := range []string{`OAuth realm="x", a="1"`, `OAuth a="`, `OAuth ,=,"`, `oauth a=%`, `OAuth a=="b"c,d`, "OAuth \x00=\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		params, ok := ParseHeader(s)
		if !ok && params != nil {
			t.Error("parameters of a header that is not ok")
		}
		for k := range params {
			if k == "" || k == "realm" {
				t.Errorf("parameter %q", k)
			}
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = []string{s}
		if c, ok := FromRequest(r); ok {
			c.Valid(r, "a", "b")
			_, _ = c.Time()
		}
		// What is well formed comes back as it went in.
		again := map[string]string{"oauth_token": s, "a": "b"}
		got, ok := ParseHeader(header(again))
		if !ok || got["oauth_token"] != s || got["a"] != "b" {
			t.Errorf("%q came back as %q", s, got["oauth_token"])
		}
	})
}
