// Package webhook drives machines through three URLs: one that switches on, one that switches off, one whose answer is matched
// by two regular expressions.
package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/ingot-metal/ingot/provisioner/power"
)

const (
	timeout   = 30 * time.Second
	maxAnswer = 1 << 20 // bytes of the query's answer that are looked at
)

// Driver is the webhook driver. Client is for tests; nil means one made from the parameters.
type Driver struct{ Client *http.Client }

// Describe implements power.Driver.
func (Driver) Describe() power.Type {
	none := [][2]string{}
	s := func(name, label, def string, required bool) power.Field {
		return power.Field{Name: name, Label: label, Required: required, Kind: "string", Choices: none, Default: def, Scope: "bmc"}
	}
	secret := func(name, label string) power.Field {
		return power.Field{Name: name, Label: label, Kind: "password", Choices: none, Scope: "bmc", Secret: true}
	}
	return power.Type{Name: "webhook", Description: "Webhook", Queryable: true, Fields: []power.Field{
		s("power_on_uri", "URI to power on the node", "", true),
		s("power_off_uri", "URI to power off the node", "", true),
		s("power_query_uri", "URI to query the nodes power status", "", true),
		s("power_on_regex", "Regex to confirm the node is on", `status.*\:.*running`, true),
		s("power_off_regex", "Regex to confirm the node is off", `status.*\:.*stopped`, true),
		s("power_user", "Power user", "", false),
		secret("power_pass", "Power password"),
		secret("power_token", "Power token, will be used in place of power_user and power_pass"),
		{Name: "power_verify_ssl", Label: "Verify SSL connections with system CA certificates", Required: true, Kind: "choice",
			Choices: [][2]string{{"n", "No"}, {"y", "Yes"}}, Default: "n", Scope: "bmc"},
	}}
}

// Query implements power.Driver.
func (d Driver) Query(ctx context.Context, p power.Params) (power.State, error) {
	p = power.WithDefaults(d.Describe(), p)
	on, err := compile(p, "power_on_regex")
	if err != nil {
		return power.Unknown, err
	}
	off, err := compile(p, "power_off_regex")
	if err != nil {
		return power.Unknown, err
	}
	body, err := d.call(ctx, http.MethodGet, "power_query_uri", p)
	switch {
	case err != nil:
		return power.Unknown, err
	case on.Match(body):
		return power.On, nil
	case off.Match(body):
		return power.Off, nil
	}
	return power.Unknown, nil
}

// On implements power.Driver. The hook decides what the machine boots from.
func (d Driver) On(ctx context.Context, p power.Params) error {
	_, err := d.call(ctx, http.MethodPost, "power_on_uri", p)
	return err
}

// Off implements power.Driver.
func (d Driver) Off(ctx context.Context, p power.Params) error {
	_, err := d.call(ctx, http.MethodPost, "power_off_uri", p)
	return err
}

// Cycle implements power.Driver: there is no hook for it, so off when on, then on.
func (d Driver) Cycle(ctx context.Context, p power.Params) error {
	st, err := d.Query(ctx, p)
	if err != nil {
		return err
	}
	if st == power.On {
		if err := d.Off(ctx, p); err != nil {
			return err
		}
	}
	return d.On(ctx, p)
}

func compile(p power.Params, field string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(p[field])
	if err != nil {
		return nil, &power.Error{Kind: power.ErrSetting, Text: field + " is not a regular expression"}
	}
	return re, nil
}

func (d Driver) call(ctx context.Context, method, field string, p power.Params) ([]byte, error) {
	u, err := url.Parse(p[field])
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		// The parse error quotes the URL, which may hold a password.
		return nil, &power.Error{Kind: power.ErrSetting, Text: field + " is not an http or https URL"}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, &power.Error{Kind: power.ErrSetting, Text: field + " cannot be requested"}
	}
	switch {
	case p["power_token"] != "":
		req.Header.Set("Authorization", "Bearer "+p["power_token"])
	case p["power_user"] != "":
		req.SetBasicAuth(p["power_user"], p["power_pass"])
	}
	if id := p["system_id"]; id != "" {
		req.Header.Set("System_Id", id)
	}
	client := d.Client
	if client == nil {
		tr := &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}
		// The parameter's default is not to verify, as hooks are often self-signed appliances.
		tr.TLSClientConfig = &tls.Config{InsecureSkipVerify: p["power_verify_ssl"] != "y"} //nolint:gosec // what the operator asked for
		client = &http.Client{Transport: tr}
	}
	res, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL
		}
		return nil, &power.Error{Kind: power.ErrConn, Text: fmt.Sprintf("%s of %s: %v", method, field, err), Err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, &power.Error{Kind: power.ErrConn, Text: fmt.Sprintf("the answer of %s broke off", field), Err: err}
	}
	switch {
	case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden:
		return nil, &power.Error{Kind: power.ErrAuth, Text: fmt.Sprintf("%s answered %s", field, res.Status)}
	case res.StatusCode >= 300:
		return nil, &power.Error{Kind: power.ErrAction, Text: fmt.Sprintf("%s answered %s", field, res.Status)}
	}
	return body, nil
}
