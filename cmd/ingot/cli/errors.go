package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
)

// explain turns a failed call into an error that says what to do.
func (a *app) explain(op *api.Operation, t target, err error) error {
	var e *client.Error
	if !errors.As(err, &e) {
		return network(t, err)
	}
	said := strings.TrimSpace(cleanLines(e.Text))
	if strings.HasPrefix(said, "<") {
		said = ""
	}
	lines := []string{fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))}
	if said != "" {
		lines[0] += ": " + strings.ReplaceAll(said, "\n", "\n  ")
	}
	hint := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch e.Status {
	case http.StatusBadRequest:
		for _, name := range slices.Sorted(maps.Keys(e.Fields)) {
			for _, msg := range e.Fields[name] {
				where := ""
				switch i := slices.IndexFunc(op.Params, func(p api.Param) bool { return p.Name == name }); {
				case i >= 0 && op.Params[i].In != api.Path:
					where = " (--" + flagOf(name) + ")"
				case name == "__all__":
					hint("%s", cleanLines(msg))
					continue
				}
				hint("%s%s: %s", clean(name), where, cleanLines(msg))
			}
		}
		if strings.Contains(said, "HTTP request to an HTTPS server") {
			hint("The server speaks TLS: use https:// in its address.")
		}
	case http.StatusUnauthorized:
		switch {
		case t.Key == "":
			hint("This needs an API key: `ingot login NAME URL KEY`, or --key.")
		case strings.Contains(said, "timestamp"):
			hint("The clocks of this machine and of the server differ by more than five minutes.")
		default:
			hint("The server does not take this API key%s. Log in again with one that is valid: `ingot login NAME %s KEY`.", t.of(), t.URL)
		}
	case http.StatusForbidden:
		hint("The user of this API key%s may not do that. `ingot users whoami` tells who it is; an administrator may, or can grant it.", t.of())
	case http.StatusNotFound:
		switch list := listOf(op); {
		case op.Handler.Prefix != "/MAAS/api/2.0":
			hint("Only Ingot has this; the server may be a MAAS, or an older Ingot.")
		case said == "" || !strings.Contains(said, "matches the given query"):
			hint("Nothing is there. Is %s the right server, and does its version know this? `ingot maas version` tells.", t.URL)
		case list != "":
			hint("`ingot %s` shows what there is.", list)
		}
	case http.StatusMethodNotAllowed:
		hint("This server has no such operation; its version may be older. `ingot maas version` tells.")
	case http.StatusConflict:
		switch {
		case op.ID == "machines.allocate":
			if why := problem(e.Problem); why != "" {
				hint("%s", why)
			} else {
				hint("`ingot machines list status=ready` shows what is free.")
			}
		case strings.HasPrefix(op.Path, "/machines/{system_id}/"):
			hint("`ingot machine read SYSTEM_ID` tells its status; not every status allows this.")
		}
	case http.StatusGone:
		hint("This feature is gone from the server's version.")
	case http.StatusNotImplemented:
		hint("The server knows this operation and cannot do it yet.")
	case http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusBadGateway:
		hint("Try again later; `ingot rack-controllers list` tells whether the racks are there.")
	case http.StatusInternalServerError:
		hint("A fault of the server: its log says more.")
	}
	return errors.New(strings.Join(lines, "\n  "))
}

// of names the profile of a target, for messages.
func (t target) of() string {
	if t.Profile == "" {
		return ""
	}
	return " (profile " + t.Profile + ")"
}

// isNetwork says that no answer came.
func isNetwork(err error) bool {
	var u *url.Error
	var n net.Error
	return errors.As(err, &u) || errors.As(err, &n)
}

// network explains a call without an answer.
func network(t target, err error) error {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		verify    *tls.CertificateVerificationError
		dns       *net.DNSError
		timeout   net.Error
	)
	cause := err
	var u *url.Error
	if errors.As(err, &u) { // its text would repeat the address
		cause = u.Err
	}
	say := func(what, advice string) error { return fmt.Errorf("%s: %s\n  %s", t.URL, what, advice) }
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case errors.Is(err, syscall.ECONNREFUSED):
		return say("connection refused", "Is the server running, and are address and port right"+t.of()+"? `ingot profiles` shows what is kept.")
	case errors.As(err, &dns):
		return say("no such host", "The name cannot be resolved here: "+clean(dns.Error()))
	case errors.As(err, &authority):
		return say("its certificate is signed by an authority that is not trusted here", "Give the authority's certificate: --ca-file FILE, also at `ingot login`.")
	case errors.As(err, &host):
		return say(clean(host.Error()), "Use the name that the certificate is for.")
	case errors.As(err, &invalid):
		return say(clean(invalid.Error()), "The server needs a new certificate, or the clock here is wrong.")
	case errors.As(err, &verify):
		return say(clean(verify.Error()), "Give the authority's certificate: --ca-file FILE, also at `ingot login`.")
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return say("no TLS there", "The server speaks plain HTTP on this port: use http:// in its address.")
	case errors.As(err, &timeout) && timeout.Timeout():
		return say("no answer in time", "Is the address right, and does a firewall let it through?")
	}
	return fmt.Errorf("%s: %s", t.URL, clean(cause.Error()))
}

// problem writes the explanation of a refused allocate: what the server says beside the text, shortened.
func problem(raw json.RawMessage) string {
	n, err := parse(raw)
	if err != nil || n.Kind != yaml.MappingNode {
		return ""
	}
	known := []string{"type", "title", "status", "detail", "instance"}
	var lines []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i].Value, n.Content[i+1]
		if slices.Contains(known, k) || isNull(v) || v.Kind != yaml.ScalarNode && len(v.Content) == 0 {
			continue
		}
		lines = append(lines, explained(strings.ReplaceAll(clean(k), "_", " "), v)...)
	}
	return strings.Join(lines, "\n  ")
}

// maxExplained is how many machines or constraints an explanation names.
const maxExplained = 10

// explained is one member of an explanation as lines.
func explained(title string, v *yaml.Node) []string {
	if v.Kind == yaml.ScalarNode {
		return []string{title + ": " + clean(v.Value)}
	}
	items := v.Content
	if v.Kind == yaml.MappingNode {
		items = []*yaml.Node{v}
	}
	lines := []string{title + ":"}
	for i, n := range items {
		if i == maxExplained {
			lines = append(lines, fmt.Sprintf("  … and %d more", len(items)-i))
			break
		}
		if n.Kind != yaml.MappingNode {
			lines = append(lines, "  "+cell(n))
			continue
		}
		var parts []string
		label := ""
		for j := 0; j+1 < len(n.Content); j += 2 {
			k, s := n.Content[j].Value, cell(n.Content[j+1])
			switch {
			case s == "":
			case k == "system_id":
				label = s + ": "
			case k == "hostname" && label != "":
				label = strings.TrimSuffix(label, ": ") + " (" + s + "): "
			case k == "reasons":
				parts = append(parts, s)
			default:
				parts = append(parts, strings.ReplaceAll(clean(k), "_", " ")+" "+s)
			}
		}
		lines = append(lines, "  "+label+strings.Join(parts, ", "))
	}
	return lines
}
