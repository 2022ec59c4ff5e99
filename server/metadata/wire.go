package metadata

import (
	"bytes"
	"compress/bzip2"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/template"

	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oauth1"
)

// form is a body in one of the two forms that clients send.
type form struct {
	values url.Values
	files  map[string][]byte
}

var errBadBody = statusError{http.StatusBadRequest, "Bad Request"}

// readForm reads a body of at most limit bytes. A body of another type is no form, and empty.
func readForm(w http.ResponseWriter, r *http.Request, limit int64) (form, error) {
	f := form{url.Values{}, map[string][]byte{}}
	typ, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return f, nil
	}
	body := http.MaxBytesReader(w, r.Body, limit)
	switch typ {
	case "application/x-www-form-urlencoded":
		raw, err := io.ReadAll(body)
		if err != nil {
			return f, err
		}
		if f.values, err = url.ParseQuery(string(raw)); err != nil {
			return f, errBadBody
		}
	case "multipart/form-data":
		if params["boundary"] == "" {
			return f, errBadBody
		}
		mr := multipart.NewReader(body, params["boundary"])
		for parts := 0; ; parts++ {
			p, err := mr.NextRawPart()
			if errors.Is(err, io.EOF) {
				return f, nil
			}
			if parts > 1000 {
				return f, errBadBody
			}
			if err == nil {
				err = f.part(p)
			}
			if err != nil {
				var big *http.MaxBytesError
				if errors.As(err, &big) {
					return f, err
				}
				return f, errBadBody
			}
		}
	}
	return f, nil
}

func (f *form) part(p *multipart.Part) error {
	data, err := io.ReadAll(p)
	if err != nil {
		return err
	}
	if strings.EqualFold(p.Header.Get("Content-Transfer-Encoding"), "base64") {
		if data, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(data)), "")); err != nil {
			return err
		}
	}
	switch name := p.FormName(); {
	case name == "":
	case p.FileName() != "":
		f.files[name] = data
	default:
		f.values.Add(name, string(data))
	}
	return nil
}

// op is the operation's name: in the query, else in the form.
func (f form) op(r *http.Request) string {
	if op := r.URL.Query().Get("op"); op != "" {
		return op
	}
	return f.values.Get("op")
}

func (f form) signal() (provisioner.Signal, error) {
	s := provisioner.Signal{Status: f.values.Get("status"), Error: strings.ToValidUTF8(f.values.Get("error"), "\uFFFD"), Name: f.values.Get("name"),
		PowerType: f.values.Get("power_type"), PowerParameters: f.values.Get("power_parameters"), Files: f.files}
	if s.Status == "" {
		return s, statusError{http.StatusBadRequest, "No provided status!"}
	}
	if v := f.values.Get("exit_status"); v != "" {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil {
			return s, statusError{http.StatusBadRequest, "Invalid exit_status: Please enter an integer value"}
		}
		s.ExitStatus = &n
	}
	if v := f.values.Get("script_result_id"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return s, statusError{http.StatusBadRequest, "Invalid script_result_id: Please enter an integer value"}
		}
		s.ScriptResultID = n
	}
	return s, nil
}

// status takes an event of cloud-init, curtin or the agent. Only the token's key is looked at, as in MAAS: a machine whose
// credentials ended must not stumble over its own reports.
func (h *Handler) status(w http.ResponseWriter, r *http.Request) (answer, error) {
	params, ok := oauth1.ParseHeader(r.Header.Get("Authorization"))
	if !ok || params["oauth_token"] == "" {
		return answer{}, errUnauthorized
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEvent))
	if err != nil {
		return answer{}, err
	}
	e, ok := parseEvent(raw)
	if !ok {
		return answer{}, statusError{http.StatusBadRequest, "Failed to decode JSON"}
	}
	if err := h.p.StatusEvent(r.Context(), params["oauth_token"], e); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent, contentType: plain}, nil
}

// parseEvent reads an event: ASCII only, with the four keys that every one has.
func parseEvent(raw []byte) (provisioner.StatusEvent, bool) {
	var e provisioner.StatusEvent
	for _, c := range raw {
		if c >= 0x80 {
			return e, false
		}
	}
	var doc struct {
		Type        *string `json:"event_type"`
		Origin      *string `json:"origin"`
		Name        *string `json:"name"`
		Description *string `json:"description"`
		Result      string  `json:"result"`
		Files       []struct {
			Path        string  `json:"path"`
			Encoding    string  `json:"encoding"`
			Compression string  `json:"compression"`
			Content     *string `json:"content"`
		} `json:"files"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil || doc.Type == nil || doc.Origin == nil || doc.Name == nil || doc.Description == nil {
		return e, false
	}
	e = provisioner.StatusEvent{Type: *doc.Type, Origin: *doc.Origin, Name: *doc.Name, Description: *doc.Description, Result: doc.Result,
		Files: map[string][]byte{}}
	for _, f := range doc.Files {
		if f.Content == nil || f.Encoding != "base64" || f.Path == "" {
			continue
		}
		data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(*f.Content), ""))
		if err != nil {
			return e, false
		}
		if f.Compression == "bzip2" {
			// Bounded: a few bytes can unpack to anything.
			if data, err = io.ReadAll(io.LimitReader(bzip2.NewReader(bytes.NewReader(data)), maxEvent)); err != nil {
				return e, false
			}
		}
		e.Files[f.Path] = data
	}
	return e, true
}

// runTemplate is the user-data of the full environment: fetch the agent from the rack and run it. Every value goes in quoted.
var runTemplate = template.Must(template.New("run").Funcs(template.FuncMap{"q": shellQuote}).Parse(`#!/bin/sh
# Runs ingot-agent, which does what this boot is for.
set -eu
RACK={{q .Rack}}
CONFIG={{q .Config}}
case "$(uname -m)" in
x86_64) ARCH=amd64 ;;
aarch64) ARCH=arm64 ;;
*) ARCH="$(uname -m)" ;;
esac
# Not below /run, which Debian mounts noexec.
DIR="$(mktemp -d /var/lib/ingot.XXXXXX)"
AGENT="$DIR/ingot-agent"
URL="$RACK/machine-resources/$ARCH/ingot-agent"
for try in 1 2 3 4 5; do
    if command -v curl >/dev/null 2>&1; then
        curl -fsS --noproxy '*' -o "$AGENT" "$URL" && break
    elif command -v wget >/dev/null 2>&1; then
        wget -q --no-proxy -O "$AGENT" "$URL" && break
    else
        python3 -c 'import sys, urllib.request as u; u.install_opener(u.build_opener(u.ProxyHandler({}))); u.urlretrieve(sys.argv[1], sys.argv[2])' "$URL" "$AGENT" && break
    fi
    sleep "$try"
done
chmod 0755 "$AGENT"
exec "$AGENT" run --config-url "$CONFIG"
`))

// shellQuote makes a word of the shell of any text.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func runScript(rack, path string) []byte {
	var b bytes.Buffer
	if err := runTemplate.Execute(&b, map[string]string{"Rack": rack, "Config": rack + path}); err != nil {
		panic("the template takes two texts: " + err.Error()) // a fault of this file
	}
	return b.Bytes()
}
