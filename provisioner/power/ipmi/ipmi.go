// Package ipmi drives BMCs by IPMI over the network: RMCP+ (2.0) with the cipher suites 3 and 17, and 1.5 where a BMC knows
// nothing better. It never asks a BMC which suites it has: many do not answer, and the question costs ten seconds.
package ipmi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/command/chassis"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/ingot-metal/ingot/provisioner/power"
)

// Driver is the IPMI driver. The zero value has the timeouts for real BMCs.
type Driver struct {
	// Timeout is how long one datagram may stay unanswered; 0 means a second.
	Timeout time.Duration
	// Tries is how often it is sent; 0 means 5.
	Tries int
}

// delays is MAAS's waiting policy for IPMI.
var delays = []time.Duration{4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second}

// Delays implements power.Delayer.
func (Driver) Delays() []time.Duration { return delays }

// Describe implements power.Driver.
func (Driver) Describe() power.Type {
	none := [][2]string{}
	return power.Type{Name: "ipmi", Description: "IPMI", Queryable: true, Fields: []power.Field{
		{Name: "power_driver", Label: "Power driver", Required: true, Kind: "choice", Default: "LAN_2_0", Scope: "bmc",
			Choices: [][2]string{{"LAN", "LAN [IPMI 1.5]"}, {"LAN_2_0", "LAN_2_0 [IPMI 2.0]"}}},
		{Name: "power_boot_type", Label: "Power boot type", Kind: "choice", Default: "auto", Scope: "bmc",
			Choices: [][2]string{{"auto", "Automatic"}, {"legacy", "Legacy boot"}, {"efi", "EFI boot"}}},
		{Name: "power_address", Label: "IP address", Required: true, Kind: "string", Choices: none, Scope: "bmc"},
		{Name: "power_user", Label: "Power user", Kind: "string", Choices: none, Scope: "bmc"},
		{Name: "power_pass", Label: "Power password", Kind: "password", Choices: none, Scope: "bmc", Secret: true},
		{Name: "k_g", Label: "K_g BMC key", Kind: "password", Choices: none, Scope: "bmc", Secret: true},
		{Name: "cipher_suite_id", Label: "Cipher Suite ID", Kind: "choice", Default: "3", Scope: "bmc",
			Choices: [][2]string{{"17", "17 - HMAC-SHA256::HMAC_SHA256_128::AES-CBC-128"}, {"3", "3 - HMAC-SHA1::HMAC-SHA1-96::AES-CBC-128"},
				{"", "freeipmi-tools default"}, {"8", "8 - HMAC-MD5::HMAC-MD5-128::AES-CBC-128"}, {"12", "12 - HMAC-MD5::MD5-128::AES-CBC-128"}}},
		{Name: "privilege_level", Label: "Privilege Level", Kind: "choice", Default: "OPERATOR", Scope: "bmc",
			Choices: [][2]string{{"USER", "User"}, {"OPERATOR", "Operator"}, {"ADMIN", "Administrator"}}},
		{Name: "workaround_flags", Label: "Workaround Flags", Kind: "multiple_choice", Default: "opensesspriv", Scope: "bmc",
			Choices: [][2]string{{"opensesspriv", "Opensesspriv"}, {"authcap", "Authcap"}, {"idzero", "Idzero"}, {"unexpectedauth", "Unexpectedauth"},
				{"forcepermsg", "Forcepermsg"}, {"endianseq", "Endianseq"}, {"intel20", "Intel20"}, {"supermicro20", "Supermicro20"}, {"sun20", "Sun20"},
				{"nochecksumcheck", "Nochecksumcheck"}, {"integritycheckvalue", "Integritycheckvalue"}, {"ipmiping", "Ipmiping"}, {"", "None"}}},
		{Name: "mac_address", Label: "Power MAC", Kind: "mac_address", Choices: none, Scope: "node"},
		{Name: "power_off_mode", Label: "Power off mode", Kind: "choice", Default: "hard", Scope: "bmc",
			Choices: [][2]string{{"soft", "Soft power off"}, {"hard", "Power off"}}},
	}}
}

// Query implements power.Driver.
func (d Driver) Query(ctx context.Context, p power.Params) (power.State, error) {
	st := power.Unknown
	err := d.session(ctx, p, func(s *session) error {
		on, err := s.isOn(ctx)
		if err == nil {
			st = power.Off
			if on {
				st = power.On
			}
		}
		return err
	})
	return st, err
}

// On implements power.Driver: boot once from the network, then up, or a cycle when it is on already.
func (d Driver) On(ctx context.Context, p power.Params) error {
	_, err := d.Act(ctx, power.ActionOn, p)
	return err
}

// Off implements power.Driver.
func (d Driver) Off(ctx context.Context, p power.Params) error {
	_, err := d.Act(ctx, power.ActionOff, p)
	return err
}

// Cycle implements power.Driver.
func (d Driver) Cycle(ctx context.Context, p power.Params) error {
	_, err := d.Act(ctx, power.ActionCycle, p)
	return err
}

// Act implements power.Reporter: it does the action and reads the state in one session.
func (d Driver) Act(ctx context.Context, a power.Action, p power.Params) (power.State, error) {
	st := power.Unknown
	err := d.session(ctx, p, func(s *session) error {
		var err error
		if a == power.ActionOff {
			err = s.off(ctx, p["power_off_mode"] == "soft")
		} else {
			err = s.cycle(ctx, p["power_boot_type"])
		}
		if err != nil {
			return err
		}
		// The action is done. That the BMC does not tell the state now is no failure of it: whoever wants to know asks again.
		if on, err := s.isOn(ctx); err == nil {
			st = power.Off
			if on {
				st = power.On
			}
		}
		return nil
	})
	return st, err
}

// cycle boots the machine anew from the network. IPMI's cycle leaves a machine that is off as it is, so that one is switched on.
func (s *session) cycle(ctx context.Context, bootType string) error {
	// A BMC without boot options still can switch: the machine's own boot order then decides. Only what says that nothing else
	// will work either ends the action.
	if err := s.bootFromNetwork(ctx, bootType); err != nil {
		var pe *power.Error
		if !errors.As(err, &pe) || pe.Kind != power.ErrAction {
			return err
		}
	}
	on, err := s.isOn(ctx)
	if err != nil {
		return err
	}
	if on {
		return s.control(ctx, chassis.ChassisControlPowerCycle)
	}
	return s.control(ctx, chassis.ChassisControlPowerUp)
}

func (s *session) off(ctx context.Context, soft bool) error {
	on, err := s.isOn(ctx)
	if err != nil || !on {
		return err
	}
	if soft {
		return s.control(ctx, chassis.ChassisControlSoftShutdown)
	}
	return s.control(ctx, chassis.ChassisControlPowerDown)
}

// session is an open session with a BMC.
type session struct {
	c     *client.Client
	tries int
}

// session opens one, with each suite of the list in turn, and closes it after fn.
func (d Driver) session(ctx context.Context, p power.Params, fn func(*session) error) error {
	p = power.WithDefaults(d.Describe(), p)
	if p["k_g"] != "" {
		return &power.Error{Kind: power.ErrSetting, Text: "k_g is set, and two-key logins are not supported; remove it from the BMC and here"}
	}
	host, port, err := address(p["power_address"])
	if err != nil {
		return err
	}
	priv, ok := privileges[p["privilege_level"]]
	if !ok {
		return &power.Error{Kind: power.ErrSetting, Text: "privilege_level is not USER, OPERATOR or ADMIN"}
	}
	suites, err := suites(p["cipher_suite_id"])
	if err != nil {
		return err
	}
	if len(p["power_user"]) > 16 || len(p["power_pass"]) > 20 {
		return &power.Error{Kind: power.ErrSetting, Text: "power_user has at most 16 bytes and power_pass at most 20"}
	}
	timeout, tries := d.Timeout, d.Tries
	if timeout <= 0 {
		timeout = time.Second
	}
	if tries <= 0 {
		tries = 5
	}
	open := func(v15 bool, suite types.CipherSuiteID) (*client.Client, error) {
		c, err := client.NewClient(host, port, p["power_user"], p["power_pass"])
		if err != nil {
			return nil, &power.Error{Kind: power.ErrSetting, Text: "power_user is too long", Err: err}
		}
		c.WithTimeout(timeout).WithRetry(tries - 1).WithMaxPrivilegeLevel(priv)
		if v15 {
			c.WithInterface(client.InterfaceLan)
			err = c.Connect(ctx)
		} else {
			c.WithCipherSuiteID(suite)
			err = connect20(ctx, c, priv)
		}
		if err != nil {
			discard(c)
			return nil, classify(err)
		}
		return c, nil
	}
	var c *client.Client
	if p["power_driver"] == "LAN" {
		if c, err = open(true, 0); err != nil {
			return err
		}
	} else {
		for i, suite := range suites {
			if c, err = open(false, suite); err == nil {
				break
			}
			if i == len(suites)-1 || !otherSuiteMayHelp(err) {
				return err
			}
		}
	}
	defer func() {
		if ctx.Err() != nil {
			discard(c)
			return
		}
		// Free the BMC's session slot: there are few, and a forgotten session holds one for a minute. Saying it again is
		// worth a moment, waiting for a BMC that has gone is not.
		cctx, cancel := context.WithTimeout(ctx, 3*timeout)
		defer cancel()
		c.WithRetry(2)
		_ = c.Close(cctx)
	}()
	// Inside a session each try needs a new sequence number, for a BMC drops a number that it has seen although its answer was
	// lost. The library repeats the same datagram, so it must not repeat.
	c.WithRetry(0)
	return fn(&session{c: c, tries: tries})
}

// connect20 activates a session: the steps of client.Connect without its first, unauthenticated question, whose answer it does
// not use, and without its keep-alive goroutine. The errors keep their types, which Connect does not.
func connect20(ctx context.Context, c *client.Client, priv types.PrivilegeLevel) error {
	if _, err := c.OpenSession(ctx); err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	if _, err := c.RAKPMessage1(ctx); err != nil {
		return fmt.Errorf("RAKP 1: %w", err)
	}
	if _, err := c.RAKPMessage3(ctx); err != nil {
		return fmt.Errorf("RAKP 3: %w", err)
	}
	if _, err := c.SetSessionPrivilegeLevel(ctx, priv); err != nil {
		return fmt.Errorf("set privilege level: %w", err)
	}
	return nil
}

// discard closes the socket without a word to the BMC.
func discard(c *client.Client) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = c.Close(ctx)
}

func (s *session) isOn(ctx context.Context) (bool, error) {
	var on bool
	err := s.try(ctx, func() error {
		r, err := s.c.GetChassisStatus(ctx)
		if err == nil {
			on = r.PowerIsOn
		}
		return err
	})
	return on, err
}

func (s *session) bootFromNetwork(ctx context.Context, bootType string) error {
	bt := types.BIOSBootTypeLegacy
	switch bootType {
	case "efi":
		bt = types.BIOSBootTypeEFI
	case "auto":
		// Automatic means: as the BMC has it. Some cannot tell; then the zero value must do.
		var flags types.BootOptionParam_BootFlags
		if err := s.try(ctx, func() error { return s.c.GetSystemBootOptionsParamFor(ctx, &flags) }); err == nil {
			bt = flags.BIOSBootType
		} else if ctx.Err() != nil {
			return err
		}
	}
	return s.try(ctx, func() error { return s.c.SetBootDevice(ctx, types.BootDeviceSelectorForcePXE, bt, false) })
}

func (s *session) control(ctx context.Context, what chassis.ChassisControl) error {
	return s.try(ctx, func() error {
		_, err := s.c.ChassisControl(ctx, what)
		return err
	})
}

// try repeats what was not answered, and what a busy BMC put off.
func (s *session) try(ctx context.Context, fn func() error) error {
	var err error
	for i := range s.tries {
		if err = fn(); err == nil {
			return nil
		}
		re, answered := types.IsResponseError(err)
		if answered && !busy(re.CompletionCode()) || ctx.Err() != nil {
			break
		}
		if answered { // busy: it did not cost a timeout, so pause
			select {
			case <-ctx.Done():
				return classify(err)
			case <-time.After(time.Duration(i+1) * 50 * time.Millisecond):
			}
		}
	}
	return classify(err)
}

// busy are the answers of a BMC that may do better in a moment.
func busy(c types.CompletionCode) bool {
	switch c {
	case types.CodeNodeBusy, types.CodeProcessTimeout, types.CodeOutOfSpace, types.CodeCannotProvideResponse,
		types.CodeCannotProvideResponseSDRRInUpdate, types.CodeCannotProvideResponseFirmwareUpdate,
		types.CodeCannotProvideResponseBMCInitialize, types.CodeCannotExecuteDuplicatedRequest:
		return true
	}
	return false
}

// classify turns an error of the library into ours. No text of the library is passed on that could quote its input.
func classify(err error) error {
	var pe *power.Error
	var rmcp *types.RmcpStatusError
	var ne net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pe):
		return pe
	case errors.Is(err, client.ErrRAKPAuthentication):
		return &power.Error{Kind: power.ErrAuth, Text: "password invalid", Err: err}
	case errors.As(err, &rmcp):
		return rmcpError(rmcp, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &power.Error{Kind: power.ErrConn, Text: "the time for the action is over", Err: err}
	}
	if re, ok := types.IsResponseError(err); ok {
		return responseError(re, err)
	}
	switch {
	case errors.As(err, &ne) && ne.Timeout(), strings.Contains(err.Error(), "no datagram matched"):
		return &power.Error{Kind: power.ErrConn, Text: "session timeout: no answer from the BMC", Err: err}
	case errors.Is(err, types.ErrUnpackedDataTooShort):
		// An older BMC answers a suite that it does not know with a message that stops after the status code.
		return &power.Error{Kind: power.ErrSetting, Text: "cipher suite id unavailable", Err: errSuite}
	}
	var oe *net.OpError
	if errors.As(err, &oe) {
		return &power.Error{Kind: power.ErrConn, Text: oe.Err.Error(), Err: err}
	}
	return &power.Error{Kind: power.ErrOther, Text: err.Error(), Err: err}
}

var errSuite = errors.New("cipher suite refused")

func otherSuiteMayHelp(err error) bool { return errors.Is(err, errSuite) }

func rmcpError(e *types.RmcpStatusError, cause error) error {
	switch e.StatusCode() {
	case types.RmcpStatusCodeUnauthorizedName:
		return &power.Error{Kind: power.ErrAuth, Text: "username invalid", Err: cause}
	case types.RmcpStatusCodeUnauthorizedRoleOfPriLevel, types.RmcpStatusCodeInvalidRole:
		return &power.Error{Kind: power.ErrAuth, Text: "privilege level cannot be obtained for this user", Err: cause}
	case types.RmcpStatusCodeInvalidIntegrityCheckValue, types.RmcpStatusCodeUnauthorizedGUID:
		return &power.Error{Kind: power.ErrAuth, Text: "password invalid", Err: cause}
	case types.RmcpStatusCodeNoCipherSuiteMatch, types.RmcpStatusCodeInvalidAuthAlg, types.RmcpStatusCodeInvalidIntegrityAlg,
		types.RmcpStatusCodeInvalidConfidentAlg, types.RmcpStatusCodeNoMatchingAuthPayload, types.RmcpStatusCodeNoMatchingIntegrityPayload:
		return &power.Error{Kind: power.ErrSetting, Text: "cipher suite id unavailable", Err: errSuite}
	case types.RmcpStatusCodeNoResToCreateSess, types.RmcpStatusCodeNoResToCreateSessAtRole:
		return &power.Error{Kind: power.ErrConn, Text: "BMC busy: it has no free session", Err: cause}
	}
	return &power.Error{Kind: power.ErrOther, Text: e.Error(), Err: cause}
}

func responseError(e *types.ResponseError, cause error) error {
	c := e.CompletionCode()
	switch {
	case busy(c):
		return &power.Error{Kind: power.ErrConn, Text: fmt.Sprintf("BMC busy (completion code %#02x)", uint8(c)), Err: cause}
	case c == types.CodeInsufficientPrivilege, c == types.CodeSetSessionPrivilegeLevelExceedsLimit, c == types.CodeSetSessionPrivilegeLevelLevelNotAvailable:
		// 0x80 and 0x81 mean this only for Set Session Privilege Level; for boot options 0x80 is "not supported".
		if c == types.CodeInsufficientPrivilege || strings.Contains(cause.Error(), "set privilege level") || strings.Contains(cause.Error(), "SetSessionPrivilegeLevel") {
			return &power.Error{Kind: power.ErrAuth, Text: "privilege level insufficient", Err: cause}
		}
	}
	return &power.Error{Kind: power.ErrAction, Text: fmt.Sprintf("the BMC refused the command (completion code %#02x)", uint8(c)), Err: cause}
}

var privileges = map[string]types.PrivilegeLevel{
	"USER": types.PrivilegeLevelUser, "OPERATOR": types.PrivilegeLevelOperator, "ADMIN": types.PrivilegeLevelAdministrator,
}

// suites is the list to try: the one that was asked for, then the other of the two that BMCs have.
func suites(id string) ([]types.CipherSuiteID, error) {
	switch id {
	case "", "3":
		return []types.CipherSuiteID{3, 17}, nil
	case "17":
		return []types.CipherSuiteID{17, 3}, nil
	case "8", "12":
		n, _ := strconv.Atoi(id)
		return []types.CipherSuiteID{types.CipherSuiteID(n)}, nil
	}
	return nil, &power.Error{Kind: power.ErrSetting, Text: "cipher_suite_id is not one of 17, 3, 8 and 12"}
}

// address splits host[:port]; a bare or bracketed IPv6 address is fine, and 623 is the port.
func address(s string) (string, int, error) {
	bad := &power.Error{Kind: power.ErrSetting, Text: "power_address is not a host or host:port"}
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || slices.Contains([]rune("/@?#"), r) }) {
		return "", 0, bad
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), "623"
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 || host == "" {
		return "", 0, bad
	}
	return host, n, nil
}
