package client

import (
	"crypto/rand"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/strfmt"
)

// OAuth signs requests with an API key (consumer:token:secret), OAuth 1.0a PLAINTEXT: the key is as safe as the connection.
func OAuth(apiKey string) (runtime.ClientAuthInfoWriter, error) {
	parts := strings.Split(strings.TrimSpace(apiKey), ":")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return nil, errors.New("client: an API key has three parts, consumer:token:secret")
	}
	return runtime.ClientAuthInfoWriterFunc(func(r runtime.ClientRequest, _ strfmt.Registry) error {
		return r.SetHeaderParam("Authorization", oauthHeader(parts, rand.Text(), time.Now()))
	}), nil
}

func oauthHeader(key []string, nonce string, now time.Time) string {
	fields := []string{
		`OAuth realm=""`, `oauth_version="1.0"`,
		`oauth_nonce="` + nonce + `"`,
		`oauth_timestamp="` + strconv.FormatInt(now.Unix(), 10) + `"`,
		`oauth_consumer_key="` + url.QueryEscape(key[0]) + `"`,
		`oauth_token="` + url.QueryEscape(key[1]) + `"`,
		`oauth_signature_method="PLAINTEXT"`,
		`oauth_signature="` + url.QueryEscape("&"+url.QueryEscape(key[2])) + `"`,
	}
	return strings.Join(fields, ", ")
}
