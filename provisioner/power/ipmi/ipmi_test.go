package ipmi

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/clock"
	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/hal/mock"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/transport"
	"github.com/bougou/go-ipmi/pkg/transport/udp"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/ingot-metal/ingot/provisioner/power"
)

// machine is the chassis of the BMC under test.
type machine struct {
	mock.Chassis
	mu    sync.Mutex
	on    bool
	calls []string
	flags *types.BootOptionParam_BootFlags
	noise int // so many calls answer busy first
	code  types.CompletionCode
}

func (m *machine) busy() error {
	if m.noise > 0 {
		m.noise--
		return m.code
	}
	return nil
}

func (m *machine) PowerState(context.Context) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on, m.busy()
}

func (m *machine) SetPower(_ context.Context, on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.busy(); err != nil {
		return err
	}
	m.calls = append(m.calls, map[bool]string{true: "up", false: "down"}[on])
	m.on = on
	return nil
}

func (m *machine) PowerCycle(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, "cycle")
	return nil
}

func (m *machine) WarmReset(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, "soft")
	m.on = false
	return nil
}

func (m *machine) SetBootFlags(_ context.Context, f *types.BootOptionParam_BootFlags) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := *f
	m.flags = &c
	return nil
}

func (m *machine) GetBootFlags(context.Context) (*types.BootOptionParam_BootFlags, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flags == nil {
		return &types.BootOptionParam_BootFlags{}, nil
	}
	c := *m.flags
	return &c, nil
}

// told is what the chassis was made to do, and what it is then. The BMC answers in goroutines of its own.
func (m *machine) told() (on bool, calls string, flags *types.BootOptionParam_BootFlags) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on, strings.Join(m.calls, " "), m.flags
}

type board struct {
	*mock.HAL
	m *machine
}

func (b board) Chassis() hal.ChassisHAL { return b.m }

// lossy drops datagrams both ways.
type lossy struct {
	transport.PacketConn
	mu   sync.Mutex
	r    *rand.Rand
	rate float64
}

func (l *lossy) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Float64() < l.rate
}

func (l *lossy) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, a, err := l.PacketConn.ReadFrom(b)
		if err != nil || !l.lost() {
			return n, a, err
		}
	}
}

func (l *lossy) WriteTo(b []byte, a net.Addr) (int, error) {
	if l.lost() {
		return len(b), nil
	}
	return l.PacketConn.WriteTo(b, a)
}

const password = "s3cret-pass"

func startBMC(t *testing.T, m *machine, loss float64, suites ...types.CipherSuiteID) power.Params {
	t.Helper()
	b := bmc.New(bmc.DeviceInfo{DeviceID: 32, DeviceRevision: 1, FirmwareMajor: 1, IPMIVersion: 2, ManufacturerID: 0x157, ProductID: 1, AdditionalDeviceSupport: 0x39},
		[16]byte{1, 2, 3}, board{mock.New(), m}, bmc.WithClock(clock.Real), bmc.WithCipherSuites(suites))
	u, err := b.Users.Add(2, "admin")
	if err != nil {
		t.Fatal(err)
	}
	u.SetPassword([]byte(password))
	u.Enabled = true
	u.ChannelAccess[1] = bmc.UserChannelAccess{MaxPrivilege: bmc.PrivilegeLevelAdministrator, Enabled: true}
	conn, err := udp.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := conn.LocalAddr().String()
	var pc transport.PacketConn = conn
	if loss > 0 {
		pc = &lossy{PacketConn: conn, r: rand.New(rand.NewPCG(1, 2)), rate: loss}
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := server.NewServer(b, pc)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ctx) }()
	t.Cleanup(func() { cancel(); _ = srv.Close(); <-done })
	return power.Params{"power_address": addr, "power_user": "admin", "power_pass": password, "privilege_level": "ADMIN"}
}

func fast() Driver { return Driver{Timeout: 60 * time.Millisecond, Tries: 8} }

func with(p power.Params, kv ...string) power.Params {
	out := power.Params{}
	for k, v := range p {
		out[k] = v
	}
	for i := 0; i < len(kv); i += 2 {
		out[kv[i]] = kv[i+1]
	}
	return out
}

func TestSuites(t *testing.T) {
	for _, tc := range []struct {
		name  string
		bmc   []types.CipherSuiteID
		asked string
	}{
		{"3", []types.CipherSuiteID{3}, "3"},
		{"17", []types.CipherSuiteID{17}, "17"},
		{"asked 3, has 17", []types.CipherSuiteID{17}, "3"},
		{"asked 17, has 3", []types.CipherSuiteID{3}, "17"},
		{"default", []types.CipherSuiteID{3, 17}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &machine{on: true}
			p := with(startBMC(t, m, 0, tc.bmc...), "cipher_suite_id", tc.asked)
			st, err := fast().Query(t.Context(), p)
			if err != nil || st != power.On {
				t.Fatalf("%s, %v", st, err)
			}
		})
	}
}

func TestActions(t *testing.T) {
	for _, tc := range []struct {
		name     string
		on       bool
		bootType string
		hadEFI   bool
		do       func(Driver, context.Context, power.Params) error
		mode     string
		calls    string
		efi      bool
		wantBoot bool
	}{
		{name: "on from off", do: Driver.On, bootType: "efi", calls: "up", efi: true, wantBoot: true},
		{name: "on from on", on: true, do: Driver.On, bootType: "legacy", hadEFI: true, calls: "cycle", wantBoot: true},
		{name: "cycle from on keeps efi", on: true, do: Driver.Cycle, bootType: "auto", hadEFI: true, calls: "cycle", efi: true, wantBoot: true},
		{name: "off", on: true, do: Driver.Off, calls: "down"},
		{name: "soft off", on: true, do: Driver.Off, mode: "soft", calls: "soft"},
		{name: "off from off", do: Driver.Off, calls: ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &machine{on: tc.on}
			if tc.hadEFI {
				m.flags = &types.BootOptionParam_BootFlags{BIOSBootType: types.BIOSBootTypeEFI}
			}
			p := with(startBMC(t, m, 0, 3, 17), "power_boot_type", tc.bootType, "power_off_mode", tc.mode)
			if err := tc.do(fast(), t.Context(), p); err != nil {
				t.Fatal(err)
			}
			_, got, f := m.told()
			if got != tc.calls {
				t.Errorf("the chassis was told %q, want %q", got, tc.calls)
			}
			if !tc.wantBoot {
				return
			}
			if f == nil || !f.BootFlagsValid || f.Persist || f.BootDeviceSelector != types.BootDeviceSelectorForcePXE || bool(f.BIOSBootType) != tc.efi {
				t.Errorf("boot flags %+v, want PXE once, efi %v", f, tc.efi)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	m := &machine{on: true}
	good := startBMC(t, m, 0, 3, 17)
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, tc := range []struct {
		name string
		p    power.Params
		kind power.ErrKind
		text string
	}{
		{"wrong password", with(good, "power_pass", "wrong-pass"), power.ErrAuth, "Could not authenticate to node's BMC: password invalid"},
		{"wrong user", with(good, "power_user", "nobody"), power.ErrAuth, "Could not authenticate to node's BMC: "},
		{"silent", with(good, "power_address", silent.LocalAddr().String()), power.ErrConn, "Could not contact node's BMC: session timeout: no answer from the BMC"},
		{"suite 8", with(good, "cipher_suite_id", "8"), power.ErrSetting, "Missing or invalid power setting: cipher suite id unavailable"},
		{"bad suite", with(good, "cipher_suite_id", "99"), power.ErrSetting, "Missing or invalid power setting: cipher_suite_id is not one of 17, 3, 8 and 12"},
		{"k_g", with(good, "k_g", "0123456789"), power.ErrSetting, "Missing or invalid power setting: k_g is set"},
		{"address", with(good, "power_address", "http://x/"), power.ErrSetting, "Missing or invalid power setting: power_address"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := fast().Query(t.Context(), tc.p)
			var pe *power.Error
			if !errors.As(err, &pe) || pe.Kind != tc.kind || !strings.HasPrefix(err.Error(), tc.text) {
				t.Fatalf("got %v (%#v)", err, pe)
			}
			if pass := tc.p["power_pass"]; strings.Contains(err.Error(), pass) {
				t.Fatalf("the error tells the password: %v", err)
			}
		})
	}
}

// A wrong password must not be tried again and again: BMCs lock users out.
func TestWrongPasswordEndsAtOnce(t *testing.T) {
	p := with(startBMC(t, &machine{}, 0, 3, 17), "power_pass", "wrong")
	slept := 0
	_, err := power.Do(t.Context(), fast(), power.ActionOn, p, power.Options{Sleep: func(context.Context, time.Duration) error { slept++; return nil }})
	var pe *power.Error
	if !errors.As(err, &pe) || pe.Kind != power.ErrAuth || slept != 0 {
		t.Fatalf("%v after %d waits", err, slept)
	}
}

func TestBusy(t *testing.T) {
	for _, code := range []types.CompletionCode{types.CodeNodeBusy, types.CodeProcessTimeout} {
		m := &machine{noise: 3, code: code}
		p := startBMC(t, m, 0, 3, 17)
		err := fast().On(t.Context(), p)
		if on, _, _ := m.told(); err != nil || !on {
			t.Errorf("%#02x: on=%v, %v", uint8(code), on, err)
		}
	}
	m := &machine{noise: 1000, code: types.CodeNodeBusy}
	p := startBMC(t, m, 0, 3, 17)
	_, err := Driver{Timeout: 60 * time.Millisecond, Tries: 2}.Query(t.Context(), p)
	var pe *power.Error
	if !errors.As(err, &pe) || pe.Fatal() || !strings.Contains(err.Error(), "BMC busy") {
		t.Errorf("always busy: %v", err)
	}
}

func TestPacketLoss(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	nap := func(ctx context.Context, _ time.Duration) error { time.Sleep(time.Millisecond); return ctx.Err() }
	for i := range 5 {
		// A BMC each: a lost answer to Open Session leaves a half-open session behind, and its slots are few.
		p := startBMC(t, &machine{}, 0.2, 3, 17)
		for _, a := range []power.Action{power.ActionOn, power.ActionQuery, power.ActionCycle, power.ActionOff} {
			st, err := power.Do(ctx, fast(), a, p, power.Options{Sleep: nap})
			if err != nil || (a.Want() != power.Unknown && st != a.Want()) {
				t.Fatalf("round %d, %s: %s, %v", i, a, st, err)
			}
		}
	}
}

func TestCancelled(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err = Driver{}.Query(ctx, power.Params{"power_address": silent.LocalAddr().String()})
	if d := time.Since(begin); err == nil || d > time.Second {
		t.Fatalf("%v after %s", err, d)
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "[fe80::1]:623", "fe80::1", "bmc.example:6230", ":1", "a:b:c", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := address(s)
		if err == nil && (host == "" || port < 1 || port > 65535) {
			t.Errorf("%q gives %q, %d", s, host, port)
		}
	})
}
