package bootsrv

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/dhcp"
	"github.com/ingot-metal/ingot/provisioner/power"
)

// Config is what a rack needs. StateDir and one of RegionURL and Transport are required; the rest has usable zero values.
type Config struct {
	// RegionURL is the region's rack link, https://host:port. Transport, when set, is used instead: it reaches the region's
	// handler in this process, which trusts it.
	RegionURL string
	Transport http.RoundTripper
	// Fingerprint is the SHA-256 of the region's CA certificate in hexadecimal, and Secret the enrolment secret. They are needed
	// once: what they bring is kept in StateDir.
	Fingerprint string
	Secret      string

	// StateDir holds the rack's identity, its snapshot, its leases and its unsent reports.
	StateDir string
	// CacheDir holds boot content; "" is StateDir/cache. CacheBytes bounds it; 0 is 20 GB.
	CacheDir   string
	CacheBytes int64
	// Blobs, when set, is the region's own store in this process: content that it has is served from there, without a copy.
	Blobs func(sha256 string) (*os.File, error)

	Hostname string // "" is the system's
	Version  string
	// Interfaces are what the region is told; nil looks at the system's, every minute.
	Interfaces []api.RackInterface

	Drivers map[string]power.Driver
	Power   power.Options
	// Jobs is how many jobs run at once; 0 is 32.
	Jobs int

	// DHCP are the listeners to answer DHCP on; none: no DHCP.
	DHCP []dhcp.Listener
	// LeaseTime and PXELeaseTime are lease times; 0: the package's.
	LeaseTime, PXELeaseTime time.Duration
	// TFTPAddr is the address of the TFTP server, HTTPAddr that of the boot HTTP server; "" serves none.
	TFTPAddr, HTTPAddr string
	// HTTPPort is what machines are told; 0 is the port of HTTPAddr.
	HTTPPort uint16
	// LoaderDir is a folder of boot loaders that win over the packages'.
	LoaderDir string
	// RegionHTTP is where requests below /MAAS/ are forwarded to, http://host:5240; RegionHandler, when set, serves them in this process.
	RegionHTTP    string
	RegionHandler http.Handler

	// MaxBackoff bounds the pause between tries to reach the region; 0 is 15 s.
	MaxBackoff time.Duration

	Log *slog.Logger
	Now func() time.Time
}

// Validate names the first field that cannot be used.
func (c *Config) Validate() error {
	if c.StateDir == "" {
		return errors.New("StateDir: a rack needs a folder for its state")
	}
	if c.Transport == nil {
		u, err := url.Parse(c.RegionURL)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return errors.New("RegionURL: the region is named as https://host:port")
		}
	}
	if c.Fingerprint != "" {
		if _, err := parseFingerprint(c.Fingerprint); err != nil {
			return fmt.Errorf("Fingerprint: %w", err)
		}
	}
	if c.CacheBytes < 0 {
		return errors.New("CacheBytes: not below 0")
	}
	if c.Jobs < 0 || c.Jobs > 10000 {
		return errors.New("Jobs: between 0 and 10000")
	}
	for name, addr := range map[string]string{"TFTPAddr": c.TFTPAddr, "HTTPAddr": c.HTTPAddr} {
		if addr == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if c.RegionHTTP != "" {
		if u, err := url.Parse(c.RegionHTTP); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return errors.New("RegionHTTP: the region's API is named as http://host:port")
		}
	}
	return nil
}

func (c *Config) defaults() error {
	if c.CacheDir == "" {
		c.CacheDir = filepath.Join(c.StateDir, "cache")
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 20 << 30
	}
	if c.Jobs == 0 {
		c.Jobs = 32
	}
	if c.MaxBackoff <= 0 {
		c.MaxBackoff = 15 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Hostname == "" {
		h, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("Hostname: %w", err)
		}
		c.Hostname, _, _ = strings.Cut(strings.ToLower(h), ".")
	}
	return nil
}

// hello is what the rack says of itself.
func (c *Config) hello(httpPort uint16) api.RackHello {
	h := api.RackHello{Hostname: c.Hostname, Architecture: runtime.GOARCH, Version: c.Version, Interfaces: c.Interfaces}
	if h.Interfaces == nil {
		h.Interfaces = systemInterfaces()
	}
	for _, i := range h.Interfaces {
		for _, a := range i.Addresses {
			if p, err := netip.ParsePrefix(a); err == nil && httpPort != 0 && h.URL == "" {
				h.URL = "http://" + netip.AddrPortFrom(p.Addr(), httpPort).String()
			}
		}
	}
	return h
}

// systemInterfaces lists the interfaces that are up, without loopback, and their addresses, without link-local ones.
func systemInterfaces() []api.RackInterface {
	out := []api.RackInterface{}
	all, err := net.Interfaces()
	if err != nil {
		return out
	}
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		ri := api.RackInterface{Name: i.Name, MAC: i.HardwareAddr.String(), Addresses: []string{}}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
				ri.Addresses = append(ri.Addresses, a.String())
			}
		}
		out = append(out, ri)
	}
	return out
}
