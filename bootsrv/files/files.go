// Package files answers "which bytes are at this path" for the rack's TFTP and HTTP servers alike: boot configurations, boot
// loaders, images by their digest, the agent. It knows nothing of either protocol.
package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/bootcfg"
	"github.com/ingot-metal/ingot/bootsrv/loaders"
	"github.com/ingot-metal/ingot/bootsrv/view"
)

// BlobSource opens verified content by its sha256 (64 lower-case hexadecimal digits). It may fetch it first. An error that is
// fs.ErrNotExist means that there is no such content; any other, that it cannot be had now.
type BlobSource interface {
	Open(ctx context.Context, sha256 string) (*os.File, error)
}

// Server resolves paths. Its fields are set once.
type Server struct {
	Source  view.Source
	Loaders *loaders.Set
	Blobs   BlobSource // nil: no content
	// HTTPPort is where clients reach the rack's boot HTTP server. 0: 5248.
	HTTPPort uint16
	// SyslogPort is named on kernel command lines. 0: bootcfg.DefaultSyslogPort.
	SyslogPort uint16
	// Who returns the MAC address that a dynamic lease gave this address to, or ""; nil: unknown.
	Who func(netip.Addr) string
	// OnStep receives boot steps. Nil: nobody.
	OnStep view.OnStep
	Now    func() time.Time
}

// Request is one request for a path.
type Request struct {
	Path     string
	Query    url.Values
	Protocol bootcfg.Protocol
	Client   netip.Addr
	Rack     netip.Addr // of ours, that the client talks to
}

// File is an answer. Close it.
type File struct {
	io.ReadSeeker
	io.Closer
	Size int64
	// Text says that this is a configuration made for one request: it must not be cached.
	Text bool
	// ETag is the digest of content that never changes.
	ETag string
	step view.Step
}

var errNoBlobs = errors.New("this rack has no content store")

var imagePath = regexp.MustCompile(`^images/([0-9a-fA-F]{64})(?:/|$)`)

// agentPath takes the architecture in Debian's and in the kernel's spelling.
var agentPath = regexp.MustCompile(`^machine-resources/([a-z0-9_]+)/ingot-agent$`)

// HasLoader says whether DHCP may offer the loader: it is on the rack or in the snapshot, and so is all that it needs.
func (s *Server) HasLoader(name string) bool {
	has := func(n string) bool {
		if s.Loaders.Has(n) {
			return true
		}
		_, ok := s.Source.View().Snapshot.Loaders[n]
		return ok && s.Blobs != nil
	}
	if !has(name) {
		return false
	}
	for _, n := range loaders.Companions(name) {
		if !has(n) {
			return false
		}
	}
	return true
}

// Open returns the file at a path. Errors that are fs.ErrNotExist mean not found.
func (s *Server) Open(ctx context.Context, r Request) (*File, error) {
	v := s.Source.View()
	p := bootcfg.CleanPath(r.Path)
	if strings.ContainsRune(p, 0) || len(p) > 1024 {
		return nil, fs.ErrNotExist
	}
	st := view.Step{Client: r.Client, Rack: r.Rack, Protocol: string(r.Protocol), Path: p}
	if a := bootcfg.Decide(bootcfg.Request{
		Path: r.Path, Query: r.Query, Protocol: r.Protocol, Rack: r.Rack, HTTPPort: s.port(), SyslogPort: s.SyslogPort, ClientMAC: s.clientMAC(v, r.Client),
	}, v); a.Kind != bootcfg.NotConfig {
		return s.config(a, st)
	}
	if m := imagePath.FindStringSubmatch(p); m != nil {
		sha := strings.ToLower(m[1])
		if _, ok := v.Content(sha); !ok {
			return nil, fmt.Errorf("content %s is not this rack's to serve: %w", sha, fs.ErrNotExist)
		}
		st.Kind = imageKind(path.Base(p))
		return s.blob(ctx, sha, st)
	}
	if m := agentPath.FindStringSubmatch(p); m != nil {
		c, ok := v.Snapshot.Agents[bootcfg.NormalArch(m[1])]
		if !ok {
			return nil, fmt.Errorf("no ingot-agent for %s: %w", m[1], fs.ErrNotExist)
		}
		st.Kind = view.StepAgent
		return s.blob(ctx, strings.ToLower(c.SHA256), st)
	}
	st.Kind = view.StepLoader
	if s.Loaders != nil {
		f, err := s.Loaders.Open(p)
		switch {
		case err == nil:
			if !loaders.Known(path.Base(p)) {
				st.Kind = "" // a module
			}
			return s.osFile(f, "", st)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	if c, ok := v.Snapshot.Loaders[path.Base(p)]; ok {
		return s.blob(ctx, strings.ToLower(c.SHA256), st)
	}
	if strings.HasSuffix(p, ".lst") {
		// GRUB's lists of commands and file systems: it complains about an error and takes nothing for an answer.
		return text(""), nil
	}
	if s.Loaders != nil && loaders.Known(path.Base(p)) {
		_, err := s.Loaders.Open(p) // names the package
		return nil, err
	}
	return nil, fs.ErrNotExist
}

func (s *Server) port() uint16 {
	if s.HTTPPort == 0 {
		return 5248
	}
	return s.HTTPPort
}

func text(t string) *File {
	return &File{ReadSeeker: strings.NewReader(t), Closer: io.NopCloser(nil), Size: int64(len(t)), Text: true}
}

func (s *Server) config(a bootcfg.Answer, st view.Step) (*File, error) {
	st.Kind, st.MAC, st.Method, st.Purpose, st.Arch, st.Detail = view.StepBootConfig, a.MAC, a.Method, string(a.Purpose), a.Arch, a.Detail
	if a.Host != nil {
		st.SystemID = a.Host.SystemID
	}
	switch {
	case a.Kind == bootcfg.NotFound:
		return nil, fmt.Errorf("%s: %w", a.Detail, fs.ErrNotExist)
	case a.Refused:
		st.Kind = view.StepRefused
	case a.Kind == bootcfg.Static:
		st.Kind = "" // says nothing about whom
	}
	f := text(a.Text)
	f.step = st
	return f, nil
}

func (s *Server) blob(ctx context.Context, sha string, st view.Step) (*File, error) {
	if s.Blobs == nil {
		return nil, errNoBlobs
	}
	f, err := s.Blobs.Open(ctx, sha)
	if err != nil {
		return nil, err
	}
	return s.osFile(f, `"`+sha+`"`, st)
}

func (s *Server) osFile(f *os.File, etag string, st view.Step) (*File, error) {
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		f.Close()
		if err == nil {
			err = fs.ErrNotExist
		}
		return nil, err
	}
	return &File{ReadSeeker: f, Closer: f, Size: fi.Size(), ETag: etag, step: st}, nil
}

// Served reports the boot step that handing out this file is. Servers call it when they begin to send a file from its start.
func (s *Server) Served(f *File) {
	if s.OnStep == nil || f.step.Kind == "" {
		return
	}
	st := f.step
	if s.Now != nil {
		st.Time = s.Now().UTC()
	} else {
		st.Time = time.Now().UTC()
	}
	if st.MAC == "" && st.SystemID == "" && st.Client.IsValid() {
		v := s.Source.View()
		if st.MAC = s.clientMAC(v, st.Client); st.MAC != "" {
			if h := v.Host(st.MAC); h != nil {
				st.SystemID = h.SystemID
			}
		}
	}
	s.OnStep(st)
}

// clientMAC returns the MAC address that an address is fixed or leased to, or "".
func (s *Server) clientMAC(v *view.View, a netip.Addr) string {
	if !a.IsValid() || a.IsLoopback() {
		return ""
	}
	if o := v.Owners(a); len(o) > 0 {
		return o[0]
	}
	if s.Who != nil {
		return s.Who(a)
	}
	return ""
}

func imageKind(name string) view.StepKind {
	switch {
	case strings.Contains(name, "initrd"):
		return view.StepInitrd
	case strings.Contains(name, "kernel"), strings.HasPrefix(name, "vmlinuz"):
		return view.StepKernel
	case strings.Contains(name, "squashfs"):
		return view.StepRoot
	}
	return view.StepImage
}

// Image returns the paths below /images/ that a boot image names, for whoever wants to fetch them ahead.
func Image(b *api.BootImage) []string {
	if b == nil {
		return nil
	}
	out := []string{b.Kernel, b.Initrd}
	if b.Root != "" {
		out = append(out, b.Root)
	}
	return out
}

// Bytes returns the file's content, for callers that need it whole. It closes the file.
func (f *File) Bytes() ([]byte, error) {
	defer f.Close()
	var b bytes.Buffer
	_, err := io.Copy(&b, f)
	return b.Bytes(), err
}
