// Package oauth1 reads and checks OAuth 1.0a signatures, PLAINTEXT and HMAC-SHA1, as MAAS's clients make them. It knows neither
// keys nor users: the caller finds the secrets, and sees to it that no nonce is used twice.
package oauth1

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The signature methods.
const (
	Plaintext = "PLAINTEXT"
	HMACSHA1  = "HMAC-SHA1"
)

// Credentials are what a request shows.
type Credentials struct {
	ConsumerKey string
	Token       string
	Signature   string
	Method      string
	Timestamp   string
	Nonce       string
	Version     string // "" when absent

	header map[string]string // all parameters of the header; nil when the credentials came otherwise
}

// maxParam bounds a parameter: nonces and keys are stored and looked up.
const maxParam = 1024

// required are the parameters without which a request has no credentials.
var required = []string{"oauth_consumer_key", "oauth_token", "oauth_signature", "oauth_signature_method", "oauth_timestamp", "oauth_nonce"}

// FromRequest finds the credentials of a request: in the header, else complete in the query, else complete in the form of the
// body (r.PostForm, when the caller has read it). Not ok says that there are none, or not all parts of them.
func FromRequest(r *http.Request) (c Credentials, ok bool) {
	for _, h := range r.Header.Values("Authorization") {
		params, isOAuth := ParseHeader(h)
		if !isOAuth {
			continue
		}
		if c, ok := fromParams(func(name string) string { return params[name] }); ok {
			c.header = params
			return c, true
		}
	}
	if strings.Contains(r.URL.RawQuery, "oauth_") {
		if c, ok := fromParams(r.URL.Query().Get); ok {
			return c, true
		}
	}
	if r.PostForm != nil {
		return fromParams(r.PostForm.Get)
	}
	return Credentials{}, false
}

func fromParams(get func(string) string) (Credentials, bool) {
	for _, name := range required {
		if v := get(name); v == "" || len(v) > maxParam {
			return Credentials{}, false
		}
	}
	c := Credentials{ConsumerKey: get("oauth_consumer_key"), Token: get("oauth_token"), Signature: get("oauth_signature"),
		Method: get("oauth_signature_method"), Timestamp: get("oauth_timestamp"), Nonce: get("oauth_nonce"), Version: get("oauth_version")}
	return c, len(c.Version) <= maxParam
}

// ParseHeader reads an Authorization header of the scheme OAuth: name="value" pairs between commas, in any order, with or
// without quotes and blanks, the values percent-encoded. The realm is left out. Not ok says that the header has another scheme, or gives a
// name twice.
func ParseHeader(h string) (params map[string]string, ok bool) {
	scheme, rest, _ := strings.Cut(strings.TrimLeft(h, " \t"), " ")
	if !strings.EqualFold(scheme, "OAuth") {
		return nil, false
	}
	params = map[string]string{}
	for rest != "" {
		var name, value string
		name, rest = cutAny(rest, "=,")
		name = strings.Trim(name, " \t")
		if strings.HasPrefix(rest, "=") {
			rest = strings.TrimLeft(rest[1:], " \t")
			if quoted, isQuoted := strings.CutPrefix(rest, `"`); isQuoted {
				value, rest, _ = strings.Cut(quoted, `"`)
				_, rest = cutAny(rest, ",")
			} else {
				value, rest = cutAny(rest, ",")
				value = strings.TrimRight(value, " \t")
			}
		}
		rest = strings.TrimPrefix(rest, ",")
		if name == "" || name == "realm" {
			continue
		}
		if _, twice := params[name]; twice {
			return nil, false
		}
		if u, err := url.PathUnescape(value); err == nil {
			value = u
		}
		params[name] = value
	}
	return params, true
}

// cutAny splits before the first of some characters.
func cutAny(s, chars string) (before, from string) {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// ErrTimestamp says that the timestamp is no number of seconds.
var ErrTimestamp = errors.New("oauth1: the timestamp is not an integer")

// Time is the time at which the request was signed.
func (c Credentials) Time() (time.Time, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(c.Timestamp), 10, 64)
	if err != nil || n < 0 || n > 1<<38 { // the year 10680: no calculation with it overflows
		return time.Time{}, ErrTimestamp
	}
	return time.Unix(n, 0), nil
}

// Supported says whether the signature method is one that Valid knows.
func (c Credentials) Supported() bool { return c.Method == Plaintext || c.Method == HMACSHA1 }

// Valid checks the signature against the secrets, in constant time.
func (c Credentials) Valid(r *http.Request, consumerSecret, tokenSecret string) bool {
	key := Escape(consumerSecret) + "&" + Escape(tokenSecret)
	switch c.Method {
	case Plaintext:
		// Clients differ in whether the parts were encoded twice; letters and digits are the same either way.
		return subtle.ConstantTimeCompare([]byte(c.Signature), []byte(key)) == 1
	case HMACSHA1:
		got, err := base64.StdEncoding.DecodeString(c.Signature)
		if err != nil {
			return false
		}
		good := false
		for _, base := range c.bases(r) {
			m := hmac.New(sha1.New, []byte(key))
			m.Write([]byte(base))
			good = hmac.Equal(got, m.Sum(nil)) || good
		}
		return good
	}
	return false
}

// bases are the texts that the client may have signed. What it called the server is known for sure to it alone: a proxy in
// between may have ended TLS or changed the host.
func (c Credentials) bases(r *http.Request) []string {
	params := []string{c.params(r, true)}
	if r.Method == http.MethodPut && len(r.PostForm) > 0 {
		// The standard covers every form; the library below the Cluster API provider covers a POST's alone. Whoever would change such a body
		// on its way is kept out by TLS, as with PLAINTEXT.
		params = append(params, c.params(r, false))
	}
	hosts := []string{r.Host}
	if h, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Host"), ","); h != "" && h != r.Host {
		hosts = append(hosts, strings.TrimSpace(h))
	}
	var out []string
	for _, host := range hosts {
		for _, scheme := range []string{"http", "https"} {
			h := strings.ToLower(host)
			if scheme == "http" {
				h = strings.TrimSuffix(h, ":80")
			} else {
				h = strings.TrimSuffix(h, ":443")
			}
			for _, p := range params {
				out = append(out, strings.ToUpper(r.Method)+"&"+Escape(scheme+"://"+h+r.URL.EscapedPath())+"&"+Escape(p))
			}
		}
	}
	return out
}

// params are the request's parameters as a signature covers them: sorted, those of the form only if wanted.
func (c Credentials) params(r *http.Request, form bool) string {
	type pair struct{ k, v string }
	var pairs []pair
	add := func(values url.Values) {
		for k, vs := range values {
			if k == "oauth_signature" {
				continue
			}
			for _, v := range vs {
				pairs = append(pairs, pair{Escape(k), Escape(v)})
			}
		}
	}
	add(r.URL.Query())
	if t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); form && strings.EqualFold(strings.TrimSpace(t), "application/x-www-form-urlencoded") {
		add(r.PostForm)
	}
	for k, v := range c.header {
		if k != "oauth_signature" {
			pairs = append(pairs, pair{Escape(k), Escape(v)})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if n := strings.Compare(a.k, b.k); n != 0 {
			return n
		}
		return strings.Compare(a.v, b.v)
	})
	var norm strings.Builder
	for i, p := range pairs {
		if i > 0 {
			norm.WriteByte('&')
		}
		norm.WriteString(p.k + "=" + p.v)
	}
	return norm.String()
}

// Escape percent-encodes as RFC 5849 wants it: all but letters, digits and "-._~".
func Escape(s string) string {
	const hex = "0123456789ABCDEF"
	plain := func(b byte) bool {
		return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '-' || b == '.' || b == '_' || b == '~'
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if plain(s[i]) {
			b.WriteByte(s[i])
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[s[i]>>4])
		b.WriteByte(hex[s[i]&15])
	}
	return b.String()
}
