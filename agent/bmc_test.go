package agent

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/clock"
	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/hal/mock"
	"github.com/bougou/go-ipmi/pkg/vmproto"
)

type bmcBoard struct {
	*mock.HAL
	ip [4]byte
}

func (b bmcBoard) Network() hal.NetworkHAL { return b }
func (b bmcBoard) GetConfig(context.Context) (*hal.IPConfig, error) {
	return &hal.IPConfig{IP: b.ip, Mask: [4]byte{255, 255, 255, 0}, MAC: [6]byte{2, 0, 0, 0, 0, 9}}, nil
}
func (bmcBoard) SetConfig(context.Context, *hal.IPConfig) error { return hal.ErrNotSupported }

// inband runs a BMC and returns the machine's side of its system interface.
func inband(t *testing.T, ip [4]byte, users ...string) (*bmc.BMC, ipmi) {
	t.Helper()
	b := bmc.New(bmc.DeviceInfo{DeviceID: 32, IPMIVersion: 0x02}, [16]byte{1}, bmcBoard{mock.New(), ip}, bmc.WithClock(clock.Real))
	for i, u := range users {
		if u == "" {
			continue
		}
		if _, err := b.Users.Add(uint8(i+2), u); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { _ = vmproto.NewVMServer(b).Serve(ctx, ln) }()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return b, vmproto.NewClient(c, 5*time.Second)
}

func TestSetupBMC(t *testing.T) {
	for name, c := range map[string]struct {
		users []string
		slot  uint8
	}{
		"first free slot": {[]string{"admin", "", "operator"}, 3},
		"its own slot":    {[]string{"admin", "operator", "maas"}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			b, conn := inband(t, [4]byte{10, 0, 0, 9}, c.users...)
			var log strings.Builder
			got, err := setupBMC(conn, "uefi", func(f string, a ...any) { log.WriteString(f) })
			if err != nil {
				t.Fatal(err)
			}
			p := got.Parameters
			if got.Type != "ipmi" || p["power_address"] != "10.0.0.9" || p["power_user"] != "maas" || p["power_driver"] != "LAN_2_0" || p["power_boot_type"] != "efi" || p["mac_address"] != "02:00:00:00:00:09" {
				t.Errorf("%v", p)
			}
			u, err := b.Users.Get(c.slot)
			if err != nil || u.Name != "maas" || !u.Enabled || !u.VerifyPassword([]byte(p["power_pass"])) || u.ChannelAccess[1].MaxPrivilege != bmc.PrivilegeLevelAdministrator {
				t.Errorf("%+v, %v", u, err)
			}
			if strings.Contains(log.String(), p["power_pass"]) {
				t.Error("the password is in the log")
			}
			again, err := setupBMC(conn, "bios", func(string, ...any) {})
			if err != nil || again.Parameters["power_pass"] == p["power_pass"] || again.Parameters["power_boot_type"] != "auto" {
				t.Errorf("refresh: %v", err)
			}
		})
	}
}

func TestBMCRefusals(t *testing.T) {
	_, conn := inband(t, [4]byte{})
	if b, err := setupBMC(conn, "bios", t.Logf); err == nil || !strings.Contains(err.Error(), "no address") {
		t.Errorf("a BMC without an address gave %v, %v", b, err)
	}
	full := make([]string, bmc.MaxUsers-1)
	for i := range full {
		full[i] = fmt.Sprintf("user%d", i)
	}
	_, conn = inband(t, [4]byte{10, 0, 0, 9}, full...)
	if b, err := setupBMC(conn, "bios", t.Logf); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("a BMC with all slots taken gave %v, %v", b, err)
	}
}

func TestPasswords(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		for _, special := range []bool{false, true} {
			p := password(14, special)
			if len(p) != 14 || seen[p] || special != strings.ContainsAny(p, "!_+=") || !strings.ContainsAny(p, "23456789") {
				t.Fatalf("%q", p)
			}
			seen[p] = true
			for i := 1; i < len(p); i++ {
				if p[i] == p[i-1] {
					t.Fatalf("%q repeats a character", p)
				}
			}
		}
	}
}
