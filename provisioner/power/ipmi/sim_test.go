package ipmi

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/provisioner/power"
)

const simEmu = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
`

const simLAN = `name "bmc"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 %d
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "%s %s"
  user 1 false "" "" user 10 none md2 md5 straight
  user 2 true "admin" "` + password + `" admin 10 none md2 md5 straight
`

// simChassis is the program that ipmi_sim asks and tells: "FILE get power", "FILE set power 1".
const simChassis = `#!/bin/sh
dir=$1; shift
case "$1 $2" in
"get power") echo "power:$(cat "$dir/power")" ;;
"get boot") echo "boot:$(cat "$dir/boot")" ;;
"set power") echo "$3" >"$dir/power"; echo "power $3" >>"$dir/log" ;;
"set boot") echo "$3" >"$dir/boot"; echo "boot $3" >>"$dir/log" ;;
*) echo "$@" >>"$dir/log" ;;
esac
`

// OpenIPMI's simulator is a BMC that nobody of us wrote: it knows suite 3 and not 17, and answers fewer questions before a session.
func TestIPMISim(t *testing.T) {
	sim, err := exec.LookPath("ipmi_sim")
	if err != nil {
		t.Skip("ipmi_sim is not installed (Debian package openipmi)")
	}
	dir := t.TempDir()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := conn.LocalAddr().(*net.UDPAddr).Port
	conn.Close()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	read := func(name string) string {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(raw)
	}
	write("power", "0\n", 0o600)
	write("boot", "none\n", 0o600)
	chassis := write("chassis", simChassis, 0o700)
	lan := write("lan.conf", fmt.Sprintf(simLAN, port, chassis, dir), 0o600)
	emu := write("sim.emu", simEmu, 0o600)
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, sim, "-n", "-c", lan, "-f", emu, "-s", state)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()

	p := power.Params{"power_address": fmt.Sprintf("127.0.0.1:%d", port), "power_user": "admin", "power_pass": password, "privilege_level": "ADMIN", "power_boot_type": "efi"}
	d := Driver{Timeout: 300 * time.Millisecond}
	st := power.Unknown
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if st, err = d.Query(t.Context(), p); err == nil {
			break
		}
	}
	if err != nil || st != power.Off {
		t.Fatalf("query: %s, %v", st, err)
	}
	o := power.Options{Sleep: func(ctx context.Context, d time.Duration) error {
		time.Sleep(min(d, 200*time.Millisecond))
		return ctx.Err()
	}}
	do := func(a power.Action, p power.Params) power.State {
		t.Helper()
		st, err := power.Do(t.Context(), d, a, p, o)
		if err != nil {
			t.Fatalf("%s: %v", a, err)
		}
		return st
	}
	if st := do(power.ActionOn, p); st != power.On || !strings.Contains(read("log"), "boot pxe") || strings.TrimSpace(read("power")) != "1" {
		t.Errorf("on: %s\n%s", st, read("log"))
	}
	if st := do(power.ActionOff, with(p, "cipher_suite_id", "17")); st != power.Off { // it refuses 17, and 3 is tried
		t.Errorf("off: %s", st)
	}
	if st := do(power.ActionOn, with(p, "power_driver", "LAN", "power_boot_type", "auto")); st != power.On { // IPMI 1.5
		t.Errorf("on by IPMI 1.5: %s", st)
	}
	if st := do(power.ActionCycle, p); st != power.On {
		t.Errorf("cycle: %s", st)
	}
	_, err = d.Query(t.Context(), with(p, "power_pass", "wrong"))
	if err == nil || !strings.HasPrefix(err.Error(), "Could not authenticate to node's BMC: ") {
		t.Errorf("wrong password: %v", err)
	}
	_, err = d.Query(t.Context(), with(p, "power_user", "nobody"))
	if err == nil || !strings.HasPrefix(err.Error(), "Could not authenticate to node's BMC: ") {
		t.Errorf("wrong user: %v", err)
	}
}
