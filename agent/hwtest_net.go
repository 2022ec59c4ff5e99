package agent

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// defaultProbe is what MAAS's own test asks when nobody names another address.
const defaultProbe = "https://connectivity-check.ubuntu.com"

// device is the interface that a test is for; empty: any.
func (t *testRun) device() string { return t.values["interface"]["name"] }

// dialer makes connections that leave by the test's interface and no other.
func (t *testRun) dialer() *net.Dialer {
	d := &net.Dialer{Timeout: 10 * time.Second}
	if name := t.device(); name != "" {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var serr error
			err := c.Control(func(fd uintptr) { serr = unix.BindToDevice(int(fd), name) })
			return errors.Join(err, serr)
		}
	}
	return d
}

// internetTest fetches or pings each address that the parameter names.
func internetTest(ctx context.Context, t *testRun) error {
	list := t.values["url"]["input"]
	if list == "" {
		list = defaultProbe
	}
	var errs []error
	for _, one := range strings.Split(list, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		if err := t.reach(ctx, one); err != nil {
			t.logf("%s: %v", one, err)
			errs = append(errs, fmt.Errorf("%s cannot be reached: %w", one, err))
		}
	}
	return errors.Join(errs...)
}

func (t *testRun) reach(ctx context.Context, target string) error {
	u, err := url.Parse(target)
	if err != nil || u.Scheme == "" || u.Scheme == "icmp" || u.Host == "" {
		host := strings.Trim(strings.TrimPrefix(target, "icmp://"), "/")
		addrs, err := t.resolve(ctx, host)
		if err != nil {
			return err
		}
		return t.ping(ctx, addrs[0])
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("the scheme %s is not one that can be tried: use http, https or icmp", u.Scheme)
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: t.dialer().DialContext, DisableKeepAlives: true,
		// Reaching it is the question. The light environment has no list of authorities to ask whether it is who it says.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // see above; nothing is sent, and nothing that comes is used
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	start := time.Now()
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
	t.logf("%s: %s after %v", target, res.Status, time.Since(start).Round(time.Millisecond))
	if res.StatusCode >= 400 {
		return fmt.Errorf("it answers %s", res.Status)
	}
	return nil
}

func (t *testRun) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return []netip.Addr{a}, nil
	}
	r := &net.Resolver{PreferGo: true}
	return r.LookupNetIP(ctx, "ip", host)
}

// gatewayTest pings the gateways of the interface.
func gatewayTest(ctx context.Context, t *testRun) error {
	name := t.device()
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("the interface %q: %w", name, err)
	}
	gateways := gatewayOf(ifc.Index)
	if len(gateways) == 0 {
		return fmt.Errorf("%s has no gateway: give its subnet one", name)
	}
	var errs []error
	for _, g := range gateways {
		if err := t.ping(ctx, g); err != nil {
			errs = append(errs, fmt.Errorf("the gateway %s does not answer: %w", g, err))
		}
	}
	return errors.Join(errs...)
}

// rackTest connects to the rack that the machine booted from, by the interface.
func rackTest(ctx context.Context, t *testRun) error {
	u, err := url.Parse(t.rack)
	if err != nil || u.Host == "" {
		return errors.New("the address of the rack is not known: MAAS_BASE_URL is empty")
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), map[bool]string{true: "443", false: "80"}[u.Scheme == "https"])
	}
	start := time.Now()
	c, err := t.dialer().DialContext(ctx, "tcp", host)
	if err != nil {
		return fmt.Errorf("the rack cannot be reached by %s: %w", firstOf(t.device(), "any interface"), err)
	}
	t.logf("%s by %s: connected after %v", host, firstOf(t.device(), "any interface"), time.Since(start).Round(time.Millisecond))
	return c.Close()
}

// ping asks an address for echoes until one comes, ten times at most.
func (t *testRun) ping(ctx context.Context, to netip.Addr) error {
	network, request, proto := "ip4:icmp", icmp.Type(ipv4.ICMPTypeEcho), 1
	listen := "0.0.0.0"
	if to.Is6() && !to.Is4In6() {
		network, request, proto, listen = "ip6:ipv6-icmp", ipv6.ICMPTypeEchoRequest, 58, "::"
	}
	lc := net.ListenConfig{Control: t.dialer().Control}
	conn, err := lc.ListenPacket(ctx, network, listen)
	if err != nil {
		return err
	}
	defer conn.Close()
	target := &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}
	if to.IsLinkLocalUnicast() && target.Zone == "" {
		target.Zone = t.device()
	}
	id := int(time.Now().UnixNano() & 0xffff)
	buf := make([]byte, 1500)
	var last error
	for seq := range 10 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		msg, err := (&icmp.Message{Type: request, Body: &icmp.Echo{ID: id, Seq: seq, Data: []byte("ingot")}}).Marshal(nil)
		if err != nil {
			return err
		}
		start := time.Now()
		if _, last = conn.WriteTo(msg, target); last == nil {
			_ = conn.SetReadDeadline(start.Add(time.Second))
			for {
				n, from, err := conn.ReadFrom(buf)
				if last = err; err != nil {
					break
				}
				m, err := icmp.ParseMessage(proto, buf[:n])
				if err != nil {
					continue
				}
				if e, ok := m.Body.(*icmp.Echo); ok && e.ID == id && (m.Type == ipv4.ICMPTypeEchoReply || m.Type == ipv6.ICMPTypeEchoReply) {
					t.logf("%s answers after %v", from, time.Since(start).Round(time.Microsecond))
					return nil
				}
			}
		} else {
			time.Sleep(200 * time.Millisecond) // no neighbour yet
		}
	}
	return fmt.Errorf("no echo from %s: %w", to, last)
}

// ntpTest asks the time servers that machines are told of; one must answer.
func ntpTest(ctx context.Context, t *testRun) error {
	servers := t.servers
	if u, err := url.Parse(t.rack); len(servers) == 0 && err == nil && u.Hostname() != "" {
		servers = []string{u.Hostname()}
	}
	if len(servers) == 0 {
		return errors.New("no time server is known: the setting ntp_servers names some")
	}
	var errs []error
	for _, s := range servers {
		err := t.askTime(ctx, net.JoinHostPort(strings.Trim(s, "[]"), "123"))
		if err == nil {
			return nil
		}
		t.logf("%v", err)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// askTime is one exchange of SNTP, tried five times.
func (t *testRun) askTime(ctx context.Context, server string) (err error) {
	const era = 2208988800 // from 1900 to 1970
	for range 5 {
		var c net.Conn
		if c, err = t.dialer().DialContext(ctx, "udp", server); err != nil {
			return err
		}
		req := make([]byte, 48)
		req[0] = 4<<3 | 3 // version 4, client
		sent := time.Now()
		_ = c.SetDeadline(sent.Add(2 * time.Second))
		_, err = c.Write(req)
		n := 0
		if err == nil {
			n, err = c.Read(req)
		}
		c.Close()
		back := time.Now()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			continue
		}
		if n < 48 || req[0]&7 != 4 || req[1] == 0 || req[1] > 15 {
			return fmt.Errorf("%s answers, and is not synchronised itself", server)
		}
		at := func(o int) time.Time {
			return time.Unix(int64(binary.BigEndian.Uint32(req[o:]))-era, int64(binary.BigEndian.Uint32(req[o+4:]))*1e9>>32)
		}
		offset := (at(32).Sub(sent) + at(40).Sub(back)) / 2
		t.logf("%s: stratum %d, its clock is %v ahead of this machine's", server, req[1], offset.Round(time.Millisecond))
		t.results["offset_ms"] = offset.Milliseconds()
		return nil
	}
	return fmt.Errorf("the time server %s does not answer: %w", server, err)
}
