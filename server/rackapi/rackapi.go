// Package rackapi is the region's end of the rack link: racks enrol here, fetch their snapshot and their boot content, claim jobs
// and report what they saw (openapi/rack.yaml). It owns the authentication of racks: by client certificate, or by the
// context of a transport in this process. What the reports and jobs mean is in package provisioner.
package rackapi

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/content"
	"github.com/ingot-metal/ingot/storage"
)

// The bounds of requests.
const (
	maxBody    = 8 << 20
	maxWait    = 60 * time.Second
	maxJobs    = 1000
	claimEvery = 250 * time.Millisecond // how often a waiting claim looks at what time has made due
)

// Config is what the handler needs.
type Config struct {
	P *provisioner.Service
	// PKI is nil where there is only a rack in this process: nobody can enrol then.
	PKI *PKI
	Log *slog.Logger
}

// API serves the link.
type API struct {
	p    *provisioner.Service
	pki  *PKI
	log  *slog.Logger
	mux  *http.ServeMux
	stop context.Context
	end  context.CancelFunc

	mu       sync.Mutex
	failures []time.Time // of enrolments with a wrong secret
}

// New returns the handler.
func New(c Config) *API {
	a := &API{p: c.P, pki: c.PKI, log: c.Log, mux: http.NewServeMux()}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.stop, a.end = context.WithCancel(context.Background())
	a.mux.HandleFunc("POST "+api.RackEnrolPath, a.enrol)
	a.handle("POST "+api.RackHelloPath, a.hello)
	a.handle("GET "+api.RackSnapshotPath, a.snapshot)
	a.handle("POST "+api.RackClaimPath, a.claim)
	a.handle("POST "+api.RackJobsPath+"{id}/heartbeat", a.heartbeat)
	a.handle("POST "+api.RackJobsPath+"{id}/result", a.result)
	a.handle("POST "+api.RackReportsPath, a.reports)
	a.handle("GET "+api.RackContentPath+"{sha256}", a.content)
	a.handle("POST "+api.RackCachePath, a.cache)
	a.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fail(w, http.StatusNotFound, "no such path") })
	return a
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// Close ends the requests that wait for something, so that a server can shut down.
func (a *API) Close() { a.end() }

type trustedKey struct{}

// Trusted is the handler for the rack inside this process: whoever can call it is that rack.
func (a *API) Trusted(systemID string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), trustedKey{}, systemID)))
	})
}

// rackHandler serves a rack that is known.
type rackHandler func(w http.ResponseWriter, r *http.Request, rack storage.Node) error

// handle authenticates, bounds the body, and turns errors into answers.
func (a *API) handle(pattern string, h rackHandler) {
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		rack, err := a.authenticate(r)
		if err == nil {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			err = h(w, r, rack)
		}
		if err != nil {
			a.fail(w, r, err)
		}
	})
}

var errUnauthorized = &provisioner.Error{Kind: provisioner.Unauthorized, Text: "no certificate of an enrolled rack"}

func (a *API) authenticate(r *http.Request) (storage.Node, error) {
	var n storage.Node
	var err error
	switch id, trusted := r.Context().Value(trustedKey{}).(string); {
	case trusted:
		n, err = a.p.RackByID(r.Context(), id)
	case r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
		// The chain leads to our authority. Whether the rack is still one, only the database knows.
		n, err = a.p.RackByCertificate(r.Context(), digest(r.TLS.VerifiedChains[0][0].Raw))
	default:
		return n, errUnauthorized
	}
	if errors.Is(err, storage.ErrNotFound) {
		return n, errUnauthorized
	}
	return n, err
}

// fail answers an error. What is not meant for the caller is logged and not told.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	var pe *provisioner.Error
	var tooLarge *http.MaxBytesError
	switch {
	case r.Context().Err() != nil:
		// Nobody is there to read it.
	case errors.As(err, &tooLarge):
		fail(w, http.StatusRequestEntityTooLarge, "the body is too large")
	case errors.Is(err, storage.ErrStale):
		fail(w, http.StatusConflict, "the attempt is not, or no longer, this rack's")
	case errors.Is(err, storage.ErrNotFound):
		fail(w, http.StatusNotFound, "not found")
	case errors.As(err, &pe) && pe.Kind != 0:
		fail(w, statusOf(pe.Kind), pe.Error())
	default:
		a.log.Error("rack request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		fail(w, http.StatusInternalServerError, "the region failed")
	}
}

func statusOf(k provisioner.Kind) int {
	switch k {
	case provisioner.Invalid:
		return http.StatusBadRequest
	case provisioner.Unauthorized:
		return http.StatusUnauthorized
	case provisioner.Forbidden:
		return http.StatusForbidden
	case provisioner.NotFound:
		return http.StatusNotFound
	case provisioner.Conflict:
		return http.StatusConflict
	case provisioner.Gone:
		return http.StatusGone
	case provisioner.Unavailable:
		return http.StatusServiceUnavailable
	case provisioner.Timeout:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

func fail(w http.ResponseWriter, status int, text string) {
	answer(w, status, api.RackError{Error: text})
}

func answer(w http.ResponseWriter, status int, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		status, raw = http.StatusInternalServerError, []byte(`{"error": "the region failed"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the peer has gone: nothing to do about it
}

func read(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	if err := dec.Decode(v); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return provisioner.Errorf(provisioner.Invalid, "the body is not the JSON that this path takes")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return provisioner.Errorf(provisioner.Invalid, "the body goes on after its JSON")
	}
	return nil
}

// enrol makes a stranger that knows the secret a rack.
func (a *API) enrol(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	var in api.RackEnrol
	if err := read(r, &in); err != nil {
		a.fail(w, r, err)
		return
	}
	if a.pki == nil {
		fail(w, http.StatusForbidden, "this region takes no racks")
		return
	}
	if a.guessing() {
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusTooManyRequests, "too many wrong secrets, wait a moment")
		return
	}
	if subtle.ConstantTimeCompare([]byte(in.Secret), []byte(a.pki.Secret())) != 1 {
		a.mu.Lock()
		a.failures = append(a.failures, time.Now())
		a.mu.Unlock()
		a.log.Warn("rack enrolment refused", "client", r.RemoteAddr, "reason", "wrong secret")
		fail(w, http.StatusUnauthorized, "wrong enrolment secret")
		return
	}
	cert, fingerprint, err := a.pki.SignRack(in.CSR, in.Hello.Hostname)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	n, err := a.p.RegisterRack(provisioner.WithActor(r.Context(), provisioner.SystemActor()), in.Hello, storage.NodeRack, fingerprint)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.log.Info("rack enrolled", "system_id", n.SystemID, "hostname", n.Hostname, "client", r.RemoteAddr)
	answer(w, http.StatusOK, api.RackEnrolled{SystemID: n.SystemID, Certificate: cert, CA: a.pki.CAPEM()})
}

// guessing says whether there were so many wrong secrets lately that nobody may try for a moment.
func (a *API) guessing() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	cut := time.Now().Add(-10 * time.Second)
	for len(a.failures) > 0 && a.failures[0].Before(cut) {
		a.failures = a.failures[1:]
	}
	return len(a.failures) >= 5
}

func (a *API) hello(w http.ResponseWriter, r *http.Request, rack storage.Node) error {
	var in api.RackHello
	if err := read(r, &in); err != nil {
		return err
	}
	if err := a.p.RackHello(r.Context(), rack.SystemID, in); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// waiting is a context that ends with the request, with the server, or after what the caller wants to wait.
func (a *API) waiting(r *http.Request, wait time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(r.Context(), min(max(wait, 0), maxWait))
	stop := context.AfterFunc(a.stop, cancel)
	return ctx, func() { stop(); cancel() }
}

func number(r *http.Request, name string, def int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, provisioner.Errorf(provisioner.Invalid, "%s is not a number", name)
	}
	return n, nil
}

func (a *API) snapshot(w http.ResponseWriter, r *http.Request, rack storage.Node) error {
	since, err := number(r, "since", -1)
	if err != nil {
		return err
	}
	seconds, err := number(r, "wait", 0)
	if err != nil {
		return err
	}
	current, err := a.p.DB.WaitRevision(r.Context(), -1)
	if err != nil {
		return err
	}
	if since >= 0 && since <= current { // a rack from the future has a region restored from a backup, and starts over
		ctx, cancel := a.waiting(r, time.Duration(min(max(seconds, 0), 3600))*time.Second)
		defer cancel()
		now, err := a.p.DB.WaitRevision(ctx, since)
		switch {
		case r.Context().Err() != nil:
			return r.Context().Err()
		case ctx.Err() != nil && now <= since:
			w.WriteHeader(http.StatusNoContent)
			return nil
		case err != nil && ctx.Err() == nil:
			return err
		}
	}
	s, err := a.p.Snapshot(r.Context(), rack.SystemID, max(since, 0))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, s)
	return nil
}

func (a *API) claim(w http.ResponseWriter, r *http.Request, rack storage.Node) error {
	var in api.RackClaim
	if err := read(r, &in); err != nil {
		return err
	}
	if in.Limit < 1 || in.Limit > maxJobs {
		return provisioner.Errorf(provisioner.Invalid, "limit is between 1 and %d", maxJobs)
	}
	ctx, cancel := a.waiting(r, time.Duration(min(max(in.WaitSeconds, 0), 3600))*time.Second)
	defer cancel()
	tick := time.NewTicker(claimEvery)
	defer tick.Stop()
	for {
		jobs, rev, err := a.p.ClaimRackJobs(r.Context(), rack.SystemID, in.Limit)
		if err != nil {
			return err
		}
		if len(jobs) > 0 || ctx.Err() != nil {
			if jobs == nil {
				jobs = []api.RackJob{}
			}
			answer(w, http.StatusOK, api.RackJobs{Jobs: jobs, Revision: rev})
			return nil
		}
		// A new order comes with a change; a retry or an ended lease with time.
		woken, done := context.WithCancel(ctx)
		go func() {
			defer done()
			_, _ = a.p.DB.WaitRevision(woken, rev)
		}()
		select {
		case <-woken.Done():
		case <-tick.C:
		}
		done()
		if r.Context().Err() != nil {
			return r.Context().Err()
		}
	}
}

func jobID(r *http.Request) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || n < 1 {
		return 0, storage.ErrNotFound
	}
	return n, nil
}

func (a *API) heartbeat(w http.ResponseWriter, r *http.Request, rack storage.Node) error {
	id, err := jobID(r)
	if err != nil {
		return err
	}
	var in api.JobHeartbeat
	if err := read(r, &in); err != nil {
		return err
	}
	lease, err := a.p.HeartbeatRackJob(r.Context(), rack.SystemID, id, in.Attempt)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, api.JobLease{LeaseSeconds: int(lease / time.Second)})
	return nil
}

func (a *API) result(w http.ResponseWriter, r *http.Request, rack storage.Node) error {
	id, err := jobID(r)
	if err != nil {
		return err
	}
	var in api.JobResult
	if err := read(r, &in); err != nil {
		return err
	}
	if err := a.p.FinishRackJob(r.Context(), rack.SystemID, id, in); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) reports(w http.ResponseWriter, r *http.Request, rack storage.Node) error {
	var in api.RackReports
	if err := read(r, &in); err != nil {
		return err
	}
	for _, l := range in.Leases {
		if _, err := netip.ParseAddr(l.IP); err != nil {
			return provisioner.Errorf(provisioner.Invalid, "a lease without an address")
		}
	}
	ctx := provisioner.WithActor(r.Context(), provisioner.SystemActor())
	if len(in.Leases) > 0 {
		if err := a.p.RecordLeases(ctx, in.Leases); err != nil {
			return err
		}
	}
	if err := a.p.RecordBoots(ctx, rack.SystemID, in.Boots); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// cache takes in what a rack holds.
func (a *API) cache(w http.ResponseWriter, r *http.Request, rack storage.Node) error {
	var in api.RackCache
	if err := read(r, &in); err != nil {
		return err
	}
	if err := a.p.RecordRackCache(r.Context(), rack, in); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// content serves a blob, with ranges, so that a fetch that broke off goes on.
func (a *API) content(w http.ResponseWriter, r *http.Request, _ storage.Node) error {
	if a.p.Content == nil {
		return storage.ErrNotFound
	}
	sha := r.PathValue("sha256")
	f, err := a.p.Content.Open(sha)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, content.ErrBadName) {
		return storage.ErrNotFound
	}
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Etag", `"`+sha+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}
