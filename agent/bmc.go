package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bougou/go-ipmi/pkg/open"
)

// ipmi is one way to the machine's own BMC: a command and its completion code.
type ipmi interface {
	Command(netFn, cmd byte, data ...byte) (cc byte, resp []byte, err error)
}

// kernelIPMI talks through the kernel's driver.
type kernelIPMI struct{ backend *open.DeviceBackend }

// Command sends one request over the system interface.
func (k kernelIPMI) Command(netFn, cmd byte, data ...byte) (byte, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b, err := k.backend.Send(ctx, &open.Request{NetFn: netFn, Cmd: cmd, Data: data, TargetAddr: 0x20, MyAddr: 0x20}, 5*time.Second)
	if err != nil {
		return 0, nil, err
	}
	if len(b) == 0 {
		return 0, nil, errors.New("empty answer")
	}
	return b[0], b[1:], nil
}

// BMCUser is the name of the account that the agent makes for the region.
const BMCUser = "maas"

// BMC is a management controller that the region can drive.
type BMC struct {
	Type       string // ipmi
	Parameters map[string]string
}

// Network functions and commands (IPMI 2.0).
const (
	fnApp, fnTransport = 0x06, 0x0c

	cmdGetDeviceID      = 0x01
	cmdGetChannelInfo   = 0x42
	cmdSetUserAccess    = 0x43
	cmdGetUserAccess    = 0x44
	cmdSetUserName      = 0x45
	cmdGetUserName      = 0x46
	cmdSetUserPassword  = 0x47
	cmdSetChannelAccess = 0x40
	cmdGetLAN           = 0x02
)

func call(c ipmi, what string, fn, cmd byte, data ...byte) ([]byte, error) {
	var err error
	for i := 0; i < 3; i++ { // busy controllers answer 0xc0
		var cc byte
		var resp []byte
		if cc, resp, err = c.Command(fn, cmd, data...); err == nil && cc == 0 {
			return resp, nil
		}
		if err == nil {
			err = fmt.Errorf("completion code %#02x", cc)
			if cc != 0xc0 && cc != 0xc3 {
				break
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	return nil, fmt.Errorf("BMC: %s: %w", what, err)
}

// DetectBMC looks for a BMC at /dev/ipmi* and makes (or refreshes) the account maas on it. nil, nil: the machine has none.
func DetectBMC(ctx context.Context, root string, logf func(string, ...any)) (*BMC, error) {
	devs, _ := filepath.Glob(filepath.Join(root, "dev/ipmi[0-9]"))
	if len(devs) == 0 {
		return nil, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(devs[0]), "ipmi"))
	if err != nil {
		return nil, err
	}
	b := &open.DeviceBackend{}
	if err := b.Connect(ctx, int32(n)); err != nil {
		return nil, fmt.Errorf("BMC: open %s: %w", devs[0], err)
	}
	defer b.Close(ctx)
	return setupBMC(kernelIPMI{b}, Firmware(root), logf)
}

// setupBMC finds the LAN channel and its address, then gives user maas a random password and administrator rights there.
func setupBMC(c ipmi, firmware string, logf func(string, ...any)) (*BMC, error) {
	id, err := call(c, "Get Device ID", fnApp, cmdGetDeviceID)
	if err != nil {
		return nil, err
	}
	if len(id) < 5 {
		return nil, errors.New("BMC: short answer to Get Device ID")
	}
	driver := "LAN"
	if id[4]&0x0f >= 2 { // BCD with its digits swapped: 02h is 2.0, 51h is 1.5
		driver = "LAN_2_0"
	}
	channel, addr, mac, err := lanChannel(c)
	if err != nil {
		return nil, err
	}
	logf("BMC: %s on LAN channel %d at %s", driver, channel, addr)
	user, err := userSlot(c, channel)
	if err != nil {
		return nil, err
	}
	pass, err := setUser(c, channel, user)
	if err != nil {
		return nil, err
	}
	// reachable at all times, at every level up to administrator; some controllers fix this and refuse
	for _, volatile := range []byte{0x40, 0x80} {
		if _, err := call(c, "Set Channel Access", fnApp, cmdSetChannelAccess, channel, volatile|0x02, volatile|0x04); err != nil {
			logf("%v (left as it is)", err)
		}
	}
	logf("BMC: user %q (slot %d) is set up", BMCUser, user)
	boot := "auto"
	if firmware == "uefi" {
		boot = "efi"
	}
	return &BMC{Type: "ipmi", Parameters: map[string]string{"power_address": addr, "power_user": BMCUser, "power_pass": pass, "power_driver": driver,
		"power_boot_type": boot, "k_g": "", "cipher_suite_id": "3", "privilege_level": "ADMIN", "mac_address": mac}}, nil
}

// lanChannel is the first 802.3 LAN channel that has an address, IPv4 before IPv6.
func lanChannel(c ipmi) (channel byte, addr, mac string, err error) {
	var lans []byte
	for ch := byte(1); ch <= 11; ch++ {
		b, err := call(c, "Get Channel Info", fnApp, cmdGetChannelInfo, ch)
		if err == nil && len(b) >= 2 && b[1]&0x7f == 4 {
			lans = append(lans, ch)
		}
	}
	if len(lans) == 0 {
		return 0, "", "", errors.New("BMC: it has no LAN channel")
	}
	param := func(ch, p, set byte, n int) []byte {
		b, err := call(c, "Get LAN Configuration", fnTransport, cmdGetLAN, ch, p, set, 0)
		if err != nil || len(b) < 1+n {
			return nil
		}
		return b[1:]
	}
	hw := func(ch byte) string {
		if b := param(ch, 5, 0, 6); b != nil {
			return net.HardwareAddr(b[:6]).String()
		}
		return ""
	}
	for _, ch := range lans {
		if b := param(ch, 3, 0, 4); b != nil {
			if a := netip.AddrFrom4([4]byte(b[:4])); !a.IsUnspecified() && !a.IsLinkLocalUnicast() {
				return ch, a.String(), hw(ch), nil
			}
		}
	}
	for _, ch := range lans {
		for _, p := range []byte{56, 59} { // static, then dynamic IPv6 addresses
			if b := param(ch, p, 0, 18); b != nil && (p == 59 || b[1]&0x80 != 0) {
				if a := netip.AddrFrom16([16]byte(b[2:18])); !a.IsUnspecified() && !a.IsLinkLocalUnicast() {
					return ch, "[" + a.String() + "]", hw(ch), nil
				}
			}
		}
	}
	return 0, "", "", fmt.Errorf("BMC: no address on its LAN channels %v", lans)
}

// userSlot is the slot that already holds the account, else the first empty one. Slot 1 is the nameless user and never taken.
func userSlot(c ipmi, channel byte) (byte, error) {
	b, err := call(c, "Get User Access", fnApp, cmdGetUserAccess, channel, 1)
	if err != nil {
		return 0, err
	}
	if len(b) < 3 {
		return 0, errors.New("BMC: short answer to Get User Access")
	}
	slots := b[0] & 0x3f
	empty := byte(0)
	for id := byte(2); id <= slots; id++ {
		cc, n, err := c.Command(fnApp, cmdGetUserName, id)
		if err != nil {
			return 0, fmt.Errorf("BMC: Get User Name: %w", err)
		}
		name := ""
		if cc == 0 {
			name = strings.TrimRight(string(n), "\x00 ")
		}
		switch {
		case name == BMCUser:
			return id, nil
		case (name == "" || name == "(Empty User)") && empty == 0:
			empty = id
		}
	}
	if empty == 0 {
		return 0, fmt.Errorf("BMC: all %d user slots are taken", slots)
	}
	return empty, nil
}

// setUser names the user, finds a password that the controller takes, enables the user and gives it its rights.
func setUser(c ipmi, channel, user byte) (string, error) {
	name := make([]byte, 16)
	copy(name, BMCUser)
	if _, err := call(c, "Set User Name", fnApp, cmdSetUserName, append([]byte{user}, name...)...); err != nil {
		return "", err
	}
	var pass string
	var err error
	for _, shape := range []struct {
		length  int
		special bool
	}{{14, false}, {19, false}, {14, true}, {19, true}} {
		pass = password(shape.length, shape.special)
		id, size := user, 16
		if shape.length > 16 {
			id, size = user|0x80, 20 // 20-byte passwords
		}
		field := make([]byte, size)
		copy(field, pass)
		if _, err = call(c, "Set User Password", fnApp, cmdSetUserPassword, append([]byte{id, 0x02}, field...)...); err == nil {
			break
		}
	}
	if err != nil {
		return "", err
	}
	if _, err := call(c, "Enable User", fnApp, cmdSetUserPassword, append([]byte{user, 0x01}, make([]byte, 16)...)...); err != nil {
		// some controllers want the operation alone
		if _, err := call(c, "Enable User", fnApp, cmdSetUserPassword, user, 0x01); err != nil {
			return "", err
		}
	}
	// link authentication and IPMI messages on, privilege limit administrator
	if _, err := call(c, "Set User Access", fnApp, cmdSetUserAccess, 0x80|0x20|0x10|channel, user, 0x04, 0x00); err != nil {
		return "", err
	}
	return pass, nil
}

// password is a random one; with special, it has each class of character and no two equal neighbours.
func password(n int, special bool) string {
	const lower, upper, digits = "abcdefghijkmnpqrstuvwxyz", "ABCDEFGHJKLMNPQRSTUVWXYZ", "23456789"
	classes := []string{lower, upper, digits}
	if special {
		classes = append(classes, "!_+=")
	}
	all := strings.Join(classes, "")
	pick := func(s string) byte {
		i, err := rand.Int(rand.Reader, big.NewInt(int64(len(s))))
		if err != nil {
			panic(err) // crypto/rand does not fail on Linux
		}
		return s[i.Int64()]
	}
	for {
		b := make([]byte, n)
		for i := range b {
			b[i] = pick(all)
			for i > 0 && b[i] == b[i-1] {
				b[i] = pick(all)
			}
		}
		ok := true
		for _, c := range classes {
			ok = ok && strings.ContainsAny(string(b), c)
		}
		if ok {
			return string(b)
		}
	}
}
