// Package metadata is the service that machines talk to through their rack: preseeds, cloud-init's MAAS datasource, signals, status events
// and the agent's tasks, at the URLs that MAAS has them. It knows their wire and nothing of the machines' rules: each request is one
// call into package provisioner. A machine's own credentials open its own data and nothing else.
package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/server/oauth1"
	"github.com/ingot-metal/ingot/storage"
)

// Prefix is where the service is mounted.
const Prefix = "/MAAS/metadata/"

// The bounds of what a machine may send.
const (
	maxSignal = 64 << 20 // outputs of scripts
	maxEvent  = 16 << 20 // a log and an archive of logs, in base64
)

// Config is what New needs. Provisioner is required; the rest has usable zero values.
type Config struct {
	Provisioner *provisioner.Service
	Log         *slog.Logger     // discards when nil
	Now         func() time.Time // time.Now when nil
}

// Handler serves everything below Prefix.
type Handler struct {
	p   *provisioner.Service
	log *slog.Logger
	now func() time.Time
}

// New makes the handler.
func New(c Config) *Handler {
	h := &Handler{p: c.Provisioner, log: c.Log, now: c.Now}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.now == nil {
		h.now = time.Now
	}
	return h
}

// statusError is an answer that is not a success.
type statusError struct {
	status int
	text   string
}

func (e statusError) Error() string { return e.text }

var (
	errNotFound     = statusError{http.StatusNotFound, "Not Found"}
	errUnauthorized = statusError{http.StatusUnauthorized, "Unauthorized"}
)

// answer is a success.
type answer struct {
	status      int
	contentType string
	body        []byte
}

const (
	plain  = "text/plain; charset=utf-8"
	binary = "application/octet-stream"
)

func text(s string) (answer, error) { return answer{http.StatusOK, plain, []byte(s)}, nil }

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, err := h.route(w, r)
	if err != nil {
		var (
			se   statusError
			rule *provisioner.Error
			big  *http.MaxBytesError
		)
		status, body := http.StatusInternalServerError, "Internal Server Error"
		switch {
		case errors.As(err, &se):
			status, body = se.status, se.text
		case errors.As(err, &rule):
			status = map[provisioner.Kind]int{provisioner.Invalid: 400, provisioner.Unauthorized: 401, provisioner.Forbidden: 403, provisioner.NotFound: 404,
				provisioner.Conflict: 409, provisioner.Unavailable: 503, provisioner.Unbuilt: 501}[rule.Kind]
			if body = rule.Text; status == 0 {
				status = http.StatusInternalServerError
			}
		case errors.As(err, &big):
			status, body = http.StatusRequestEntityTooLarge, "The request body is too large."
		case errors.Is(err, storage.ErrNotFound):
			status, body = http.StatusNotFound, "Not Found"
		case errors.Is(err, storage.ErrStale):
			status, body = http.StatusConflict, "The machine changed at the same moment."
		case r.Context().Err() != nil:
			return
		default:
			h.log.Error("metadata request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		}
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `OAuth realm="OAuth"`)
		}
		// Machines with a wrong clock learn the time from the answer.
		w.Header().Set("Date", h.now().UTC().Format(http.TimeFormat))
		a = answer{status, plain, []byte(body)}
	}
	w.Header().Set("Content-Type", a.contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead && a.status != http.StatusNoContent {
		_, _ = w.Write(a.body) // a machine that went away hears nothing
	}
}

// route finds what a path means. Slashes may be repeated, and one may be missing or too many at the end.
func (h *Handler) route(w http.ResponseWriter, r *http.Request) (answer, error) {
	rest, ok := strings.CutPrefix(r.URL.Path, Prefix)
	if !ok && r.URL.Path != strings.TrimSuffix(Prefix, "/") {
		return answer{}, errNotFound
	}
	parts := strings.FieldsFunc(rest, func(c rune) bool { return c == '/' })
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !get && r.Method != http.MethodPost {
		return answer{}, statusError{http.StatusMethodNotAllowed, "Method Not Allowed"}
	}
	if len(parts) > 0 && parts[0] == "status" {
		if len(parts) != 2 || get {
			return answer{}, errNotFound
		}
		return h.status(w, r)
	}
	curtin, enlist := false, false
	if len(parts) > 0 && (parts[0] == "curtin" || parts[0] == "enlist") {
		curtin, enlist = parts[0] == "curtin", parts[0] == "enlist"
		parts = parts[1:]
	}
	if len(parts) > 0 && parts[0] != "latest" && parts[0] != "2012-03-01" {
		return answer{}, errNotFound
	}
	if len(parts) > 1 {
		switch parts[1] {
		case "by-id":
			return h.byID(w, r, parts[2:], get)
		case "enlist-preseed":
			if !get || r.URL.Query().Get("op") != "get_enlist_preseed" {
				return answer{}, statusError{http.StatusBadRequest, "Unrecognised signature"}
			}
			return h.enlistPreseed(r)
		case "by-mac":
			return answer{}, statusError{http.StatusForbidden, "Unauthenticated metadata access is not allowed."}
		}
	}
	if enlist {
		if !get {
			return answer{}, errNotFound
		}
		return h.enlist(r, parts)
	}
	node, err := h.node(r)
	if err != nil {
		return answer{}, err
	}
	if node == nil { // nobody yet: the answers of enlistment
		if !get {
			return answer{}, errUnauthorized
		}
		return h.enlist(r, parts)
	}
	if !get {
		if len(parts) != 1 {
			return answer{}, errNotFound
		}
		return h.post(w, r, node)
	}
	return h.get(r, node, parts, curtin)
}

// node finds the machine whose credentials a request shows: nil when it shows none.
func (h *Handler) node(r *http.Request) (*storage.Node, error) {
	if r.Header.Get("Authorization") == "" {
		return nil, nil
	}
	cred, ok := oauth1.FromRequest(r)
	if !ok {
		return nil, errUnauthorized
	}
	n, token, err := h.p.NodeByToken(r.Context(), cred.Token)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, errUnauthorized
	}
	if err != nil {
		return nil, err
	}
	signed, err := cred.Time()
	if err != nil || cred.ConsumerKey != token.ConsumerKey || !cred.Supported() || !cred.Valid(r, "", token.TokenSecret) ||
		h.now().Sub(signed) > provisioner.NonceWindow {
		return nil, errUnauthorized
	}
	return &n, nil
}

func list(items ...string) (answer, error) { return text(strings.Join(items, "\n")) }

func (h *Handler) get(r *http.Request, n *storage.Node, parts []string, curtin bool) (answer, error) {
	if len(parts) == 0 {
		return list("latest", "2012-03-01")
	}
	ctx := r.Context()
	switch path := strings.Join(parts[1:], "/"); path {
	case "":
		items := []string{"maas-commissioning-scripts", "meta-data"}
		if len(n.UserData) > 0 {
			items = append(items, "user-data")
		}
		return list(items...)
	case "meta-data":
		return h.metaDataKeys(ctx, n)
	case "user-data":
		return h.userData(r, n, curtin)
	case "maas-scripts":
		return h.scripts(ctx, n)
	case "maas-commissioning-scripts":
		return answer{}, errNotFound
	case "curtin-installer":
		if !curtin {
			return answer{}, errNotFound
		}
		return h.curtinInstaller(r, n)
	case "ingot-task":
		t, err := h.p.Task(ctx, n.ID, base(r, n)+"/MAAS/metadata/")
		if err != nil {
			return answer{}, err
		}
		return taskAnswer(t)
	default:
		if key, ok := strings.CutPrefix(path, "meta-data/"); ok {
			return h.metaData(r, n, key)
		}
		return answer{}, errNotFound
	}
}

func taskAnswer(t api.Task) (answer, error) {
	body, err := json.Marshal(t)
	return answer{http.StatusOK, "application/json", body}, err
}

func (h *Handler) metaDataKeys(ctx context.Context, n *storage.Node) (answer, error) {
	keys := []string{"instance-id", "local-hostname"}
	id, err := h.p.MachineIdentity(ctx, n.ID)
	if err != nil {
		return answer{}, err
	}
	if len(id.SSHKeys) > 0 && !id.HideKeys {
		keys = append(keys, "public-keys")
	}
	if keys = append(keys, "vendor-data"); len(id.Certificates) > 0 {
		keys = append(keys, "x509")
	}
	return list(keys...)
}

func (h *Handler) metaData(r *http.Request, n *storage.Node, key string) (answer, error) {
	id, err := h.p.MachineIdentity(r.Context(), n.ID)
	if err != nil {
		return answer{}, err
	}
	switch key {
	case "instance-id":
		return text(n.SystemID)
	case "local-hostname":
		return text(id.FQDN)
	case "public-keys":
		return publicKeys(id)
	case "x509":
		return certificates(id)
	case "vendor-data":
		v := layout.Vendor{NTP: id.NTP, DropRunNetplan: id.Ephemeral, VCenter: id.VCenter}
		if id.Sync > 0 {
			if v.Sync, err = h.hardwareSync(r, n, id.Sync); err != nil {
				return answer{}, err
			}
		}
		body, err := v.Render()
		return answer{http.StatusOK, "application/x-yaml; charset=utf-8", body}, err
	}
	return answer{}, errNotFound
}

func (h *Handler) userData(r *http.Request, n *storage.Node, curtin bool) (answer, error) {
	run := func() (answer, error) {
		return answer{http.StatusOK, binary, runScript(base(r, n), preseedPath(n.SystemID))}, nil
	}
	if curtin {
		doc, err := h.p.InstallerUserData(r.Context(), n.ID, base(r, n))
		if err != nil || doc == nil {
			a, _ := run()
			return a, err
		}
		return answer{http.StatusOK, binary, doc}, nil
	}
	kind, data, err := h.p.UserData(r.Context(), n.ID)
	switch {
	case err != nil:
		return answer{}, err
	case kind == "run":
		return run()
	case kind == "none":
		return answer{}, errNotFound
	}
	return answer{http.StatusOK, binary, data}, nil
}

func preseedPath(systemID string) string {
	return Prefix + "latest/by-id/" + systemID + "/?op=get_preseed"
}

const enlistPath = Prefix + "latest/enlist-preseed/?op=get_enlist_preseed"

// enlist answers machines that nobody knows yet.
func (h *Handler) enlist(r *http.Request, parts []string) (answer, error) {
	if len(parts) == 0 {
		return list("latest", "2012-03-01")
	}
	switch strings.Join(parts[1:], "/") {
	case "":
		return list("meta-data", "user-data")
	case "meta-data":
		return list("instance-id", "local-hostname", "public-keys")
	case "meta-data/instance-id":
		return text("i-maas-enlistment")
	case "meta-data/local-hostname":
		return text("maas-enlisting-node")
	case "meta-data/public-keys":
		return text("")
	case "user-data":
		return answer{http.StatusOK, plain, runScript(base(r, nil), enlistPath)}, nil
	case "maas-scripts":
		return answer{status: http.StatusNoContent, contentType: plain}, nil
	case "ingot-task":
		return taskAnswer(api.Task{Step: api.TaskEnlist, Then: "poweroff"})
	}
	return answer{}, errNotFound
}

func (h *Handler) enlistPreseed(r *http.Request) (answer, error) {
	body, err := h.p.EnlistPreseed(r.Context(), base(r, nil))
	return answer{http.StatusOK, plain, body}, err
}

var systemIDText = regexp.MustCompile(`^[a-z0-9]{1,16}$`)

// byID answers without credentials, as MAAS does: it is how a machine gets them. Whoever reaches a rack reaches this.
func (h *Handler) byID(w http.ResponseWriter, r *http.Request, parts []string, get bool) (answer, error) {
	if len(parts) != 1 || !systemIDText.MatchString(parts[0]) {
		return answer{}, errNotFound
	}
	if !get {
		form, err := readForm(w, r, maxEvent)
		if err != nil {
			return answer{}, err
		}
		if form.op(r) != "netboot_off" {
			return answer{}, statusError{http.StatusBadRequest, "Unrecognised signature"}
		}
		n, _, err := h.p.MachineCredentials(r.Context(), parts[0])
		if err != nil {
			return answer{}, err
		}
		if err := h.p.NetbootOff(r.Context(), n.ID); err != nil {
			return answer{}, err
		}
		return text("OK")
	}
	if r.URL.Query().Get("op") == "get_kickstart" {
		return h.kickstart(r, parts[0])
	}
	if r.URL.Query().Get("op") != "get_preseed" {
		return answer{}, statusError{http.StatusBadRequest, "Unrecognised signature"}
	}
	body, err := h.p.MachinePreseed(r.Context(), parts[0], func(n *storage.Node) string { return base(r, n) })
	return answer{http.StatusOK, plain, body}, err
}

// post carries out the operations of a machine on itself.
func (h *Handler) post(w http.ResponseWriter, r *http.Request, n *storage.Node) (answer, error) {
	form, err := readForm(w, r, maxSignal)
	if err != nil {
		return answer{}, err
	}
	ctx := r.Context()
	switch form.op(r) {
	case "signal":
		sig, err := form.signal()
		if err != nil {
			return answer{}, err
		}
		err = h.p.Signal(ctx, n.ID, sig)
		if err != nil {
			return answer{}, err
		}
	case "netboot_off":
		if err := h.p.NetbootOff(ctx, n.ID); err != nil {
			return answer{}, err
		}
	case "netboot_on":
		if err := h.p.NetbootOn(ctx, n.ID); err != nil {
			return answer{}, err
		}
	default:
		return answer{}, statusError{http.StatusBadRequest, "Unrecognised signature"}
	}
	return text("OK")
}

// base is scheme and host of the rack that the request came through: machines talk to their rack only. A rack names itself in
// X-Forwarded-Host; a direct caller in Host; failing both, the machine's last rack is taken.
func base(r *http.Request, n *storage.Node) string {
	forwarded, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Host"), ",")
	for _, host := range []string{strings.TrimSpace(forwarded), r.Host} {
		if validHost(host) {
			return "http://" + host
		}
	}
	if n != nil {
		if a, err := netip.ParseAddr(n.BootRackIP); err == nil {
			return "http://" + net.JoinHostPort(a.String(), "5248")
		}
	}
	return "http://localhost:5248"
}

var hostText = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]{1,5})?$`)

func validHost(host string) bool {
	if hostText.MatchString(host) {
		return true
	}
	if !strings.HasPrefix(host, "[") { // an IPv6 address in brackets
		return false
	}
	u, err := url.Parse("http://" + host)
	if err != nil || u.Host != host {
		return false
	}
	_, err = netip.ParseAddr(u.Hostname())
	return err == nil
}
