package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// Steps are the places where Faults.DieAt and Faults.FailAt can strike, in the order of a life.
var Steps = []string{
	"firmware", "dhcp", "loader", "config", "kernel", "preseed", "task", "enlist", "inventory", "scripts",
	"partitioning", "extract", "curthooks", "netboot_off", "erase", "signal-ok", "first-boot", "user-data", "final",
}

const maxAnswer = 16 << 20

func readBody(r *http.Response) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = errors.New("the answer is too large")
	}
	return b, err
}

// agent does the task of this boot as ingot-agent does.
func (m *Machine) agent(ctx context.Context, c *metadata, configURL string, full bool) (action, error) {
	for range 3 { // enlistment is followed by another task
		task, err := m.task(ctx, c)
		if err != nil {
			if errors.Is(err, errDied) {
				return actStay, err
			}
			return actOff, err
		}
		m.step("agent", "task "+string(task.Step))
		then, err := m.doTask(ctx, c, task, configURL)
		switch {
		case errors.Is(err, errAgain):
			continue
		case err != nil && (errors.Is(err, errDied) || ctx.Err() != nil):
			return actStay, err
		case err != nil:
			// Say what went wrong; the machine then waits with its power off, like one whose scripts failed.
			c.post(ctx, "curtin", "cmd-"+string(task.Step), "finish", "FAIL", err.Error())
			if serr := c.signal(ctx, "FAILED", err.Error(), nil, nil); serr != nil {
				m.step("agent", "signal FAILED: "+serr.Error())
			}
			return actOff, err
		}
		if full {
			c.event(ctx, "cloudinit", "modules-final/config-scripts-user", "finish", "SUCCESS")
			c.event(ctx, "cloudinit", "modules-final", "finish", "SUCCESS")
		}
		if sys := m.inMemory; sys != nil {
			m.inMemory = nil
			m.step("boot", "into the system in memory")
			return m.runSystem(ctx, nil, 0, sys)
		}
		switch then {
		case "reboot":
			return actReboot, nil
		case "stay":
			m.step("agent", "stays up")
			return actStay, nil
		default:
			return actOff, nil
		}
	}
	return actOff, errors.New("the server asks to enlist again and again")
}

var errAgain = errors.New("fetch the task again")

func (m *Machine) task(ctx context.Context, c *metadata) (*api.Task, error) {
	if err := m.enter(ctx, "task"); err != nil {
		return nil, err
	}
	u := c.root() + "latest/ingot-task"
	if !c.authorized {
		u = c.root() + "enlist/latest/ingot-task"
	}
	b, err := c.do(ctx, http.MethodGet, u, nil, "")
	if err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	t := &api.Task{}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	return t, nil
}

func (m *Machine) doTask(ctx context.Context, c *metadata, t *api.Task, configURL string) (string, error) {
	switch t.Step {
	case api.TaskEnlist:
		if err := m.enlist(ctx, c, configURL); err != nil {
			return "", err
		}
		return "", errAgain
	case api.TaskCommission:
		return t.Then, m.commission(ctx, c)
	case api.TaskTest:
		return t.Then, m.test(ctx, c)
	case api.TaskInstall:
		return t.Then, m.install(ctx, c, t, configURL)
	case api.TaskErase:
		return t.Then, m.erase(ctx, c, t)
	case api.TaskRescue:
		return t.Then, m.ok(ctx, c)
	case api.TaskPowerOff:
		return t.Then, nil
	}
	return "", fmt.Errorf("unknown task %q", t.Step)
}

func (m *Machine) ok(ctx context.Context, c *metadata) error {
	if err := m.enter(ctx, "signal-ok"); err != nil {
		return err
	}
	return c.signal(ctx, "OK", "All scripts successfully ran", nil, nil)
}

// signal posts MAAS's signal. Fields are added to the form; files are named by their script.
func (c *metadata) signal(ctx context.Context, status, text string, fields map[string]string, files map[string][]byte) error {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	form := map[string]string{"op": "signal", "status": status}
	if text != "" {
		form["error"] = text
	}
	for k, v := range fields {
		form[k] = v
	}
	for k, v := range form {
		if err := w.WriteField(k, v); err != nil {
			return err
		}
	}
	for name, content := range files {
		f, err := w.CreateFormFile(name, name)
		if err != nil {
			return err
		}
		if _, err := f.Write(content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	b, err := c.do(ctx, http.MethodPost, c.root()+"2012-03-01/", buf.Bytes(), w.FormDataContentType())
	if err != nil {
		return fmt.Errorf("signal %s: %w", status, err)
	}
	if strings.TrimSpace(string(b)) != "OK" {
		return fmt.Errorf("signal %s: the answer is %.60q, not OK", status, b)
	}
	return nil
}

// enlist registers the machine and takes over the credentials that it gets.
func (m *Machine) enlist(ctx context.Context, c *metadata, configURL string) error {
	if err := m.enter(ctx, "enlist"); err != nil {
		return err
	}
	rack, err := rackOf(configURL)
	if err != nil {
		return err
	}
	machines := rack + "/MAAS/api/2.0/machines/"
	b, err := c.do(ctx, http.MethodGet, machines+"?op=is_registered&mac_address="+url.QueryEscape(m.cfg.MAC), nil, "")
	switch {
	case err == nil && strings.TrimSpace(string(b)) == "true":
		return errors.New("the server knows this machine already and wants no enlistment")
	case err != nil && status(err) != http.StatusNotImplemented:
		return fmt.Errorf("is_registered: %w", err)
	}
	form := url.Values{"architecture": {m.cfg.Arch + "/generic"}, "mac_addresses": {m.cfg.MAC}, "commission": {"True"}}
	if !m.cfg.NoBMC {
		p, err := json.Marshal(m.powerParameters())
		if err != nil {
			return err
		}
		form.Set("power_type", "ipmi")
		form.Set("power_parameters", string(p))
	}
	if b, err = c.do(ctx, http.MethodPost, machines, []byte(form.Encode()), "application/x-www-form-urlencoded"); err != nil {
		return fmt.Errorf("enlist: %w", err)
	}
	var created struct {
		SystemID string `json:"system_id"`
	}
	if err := json.Unmarshal(b, &created); err != nil || created.SystemID == "" {
		return fmt.Errorf("enlist: the answer names no system_id: %.200s", b)
	}
	m.step("agent", "enlisted as "+created.SystemID)
	if b, err = c.do(ctx, http.MethodGet, c.root()+"latest/by-id/"+url.PathEscape(created.SystemID)+"/?op=get_preseed", nil, ""); err != nil {
		return fmt.Errorf("preseed after enlistment: %w", err)
	}
	p, err := parsePreseed(b)
	if err != nil {
		return err
	}
	if p.Datasource.MAAS.TokenKey == "" {
		return errors.New("the preseed after enlistment has no credentials")
	}
	c.use(p)
	return nil
}

func (m *Machine) powerParameters() map[string]string {
	boot := "auto"
	if m.cfg.Firmware.Mode() == "uefi" {
		boot = "efi"
	}
	return map[string]string{
		"power_address": m.BMCAddress(), "power_user": m.cfg.BMC.User, "power_pass": m.cfg.BMC.Password, "power_driver": "LAN_2_0",
		"power_boot_type": boot, "cipher_suite_id": "17", "privilege_level": "ADMIN",
	}
}

// scriptItem is an entry of index.json.
type scriptItem struct {
	Name            string `json:"name"`
	Path            string `json:"path"`
	ScriptResultID  int64  `json:"script_result_id"`
	ScriptVersionID int64  `json:"script_version_id"`
	HasFinished     bool   `json:"has_finished"`
	needs
}

const inventoryScript = "50-maas-01-commissioning"

// commission reports the inventory and the results of whatever scripts the server has for this machine.
func (m *Machine) commission(ctx context.Context, c *metadata) error {
	if err := c.signal(ctx, "WORKING", "", nil, nil); err != nil {
		return err
	}
	reported := false
	for round := 0; ; round++ {
		scripts, err := m.scripts(ctx, c, "commissioning_scripts")
		if err != nil {
			return err
		}
		if round == 0 && !hasScript(scripts, inventoryScript) {
			scripts = append([]scriptItem{{Name: inventoryScript}}, scripts...)
		}
		if len(scripts) == 0 {
			break
		}
		if round == maxRounds {
			return errors.New("the server has commissioning scripts again and again")
		}
		if err := m.runScripts(ctx, c, scripts); err != nil {
			return err
		}
		reported = reported || hasScript(scripts, inventoryScript)
	}
	if !reported {
		return errors.New("the inventory was not reported")
	}
	scripts, err := m.scripts(ctx, c, "testing_scripts")
	if err != nil {
		return err
	}
	if len(scripts) > 0 {
		if err := c.signal(ctx, "TESTING", "", nil, nil); err != nil {
			return err
		}
		if err := m.runScripts(ctx, c, scripts); err != nil {
			return err
		}
	}
	return m.ok(ctx, c)
}

// maxRounds bounds how often scripts are fetched again after some have run: a server adds scripts by what the first have found.
const maxRounds = 10

// test reports the results of test scripts.
func (m *Machine) test(ctx context.Context, c *metadata) error {
	scripts, err := m.scripts(ctx, c, "testing_scripts")
	if err != nil {
		return err
	}
	if err := m.runScripts(ctx, c, scripts); err != nil {
		return err
	}
	return m.ok(ctx, c)
}

func (m *Machine) runScripts(ctx context.Context, c *metadata, scripts []scriptItem) error {
	failed := 0
	for _, s := range scripts {
		bad, err := m.runScript(ctx, c, s)
		if err != nil {
			return err
		}
		if bad {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d scripts failed to run", failed)
	}
	return nil
}

func hasScript(l []scriptItem, name string) bool {
	for _, s := range l {
		if s.Name == name {
			return true
		}
	}
	return false
}

func (m *Machine) scripts(ctx context.Context, c *metadata, group string) ([]scriptItem, error) {
	b, err := c.do(ctx, http.MethodGet, c.root()+"2012-03-01/maas-scripts", nil, "")
	if err != nil {
		return nil, fmt.Errorf("maas-scripts: %w", err)
	}
	if len(b) == 0 {
		return nil, nil // 204
	}
	r := tar.NewReader(bytes.NewReader(b))
	var index struct {
		Groups map[string][]scriptItem `json:"1.0"`
	}
	bodies := map[string]bool{}
	var netplan []byte
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("maas-scripts: %w", err)
		}
		bodies[h.Name] = true
		if h.Name == "index.json" {
			if err := json.NewDecoder(r).Decode(&index); err != nil {
				return nil, fmt.Errorf("maas-scripts: index.json: %w", err)
			}
		}
		if h.Name == "../config/netplan.yaml" {
			if netplan, err = io.ReadAll(io.LimitReader(r, maxAnswer)); err != nil {
				return nil, fmt.Errorf("maas-scripts: %s: %w", h.Name, err)
			}
		}
	}
	var out []scriptItem
	for _, s := range index.Groups[group] {
		if s.HasFinished {
			continue
		}
		if !bodies[s.Path] {
			return nil, fmt.Errorf("maas-scripts: index.json names %q, which is not in the archive", s.Path)
		}
		s.netplan = netplan
		out = append(out, s)
	}
	return out, nil
}

// runScript reports one script. Lab machines execute no code: the inventory is made up from the machine's configuration, other
// scripts end with the exit status that the configuration gives them and say so in their output.
func (m *Machine) runScript(ctx context.Context, c *metadata, s scriptItem) (failed bool, err error) {
	step := "scripts"
	if s.Name == inventoryScript {
		step = "inventory"
	}
	if err := m.enter(ctx, step); err != nil {
		return false, err
	}
	end := m.outcome(s.Name)
	exit, out := end.Exit, []byte(end.Output)
	if err := m.beginScript(ctx, c, s); err != nil {
		return false, err
	}
	if s.Name == inventoryScript {
		if out, err = m.inventory(); err != nil {
			return false, err
		}
	}
	switch s.Name {
	case "maas-kernel-cmdline":
		out = []byte("BOOTIF=01-" + strings.ReplaceAll(m.cfg.MAC, ":", "-") + "\n")
	case "maas-lshw":
		out = m.lshw()
	case "maas-list-modaliases":
		out = []byte(modaliases)
	case "maas-capture-lldpd":
		out = m.lldp()
	}
	fields := s.fields()
	fields["exit_status"], fields["runtime"] = fmt.Sprint(exit), "0.1"
	if s.Name == inventoryScript && !m.cfg.NoBMC {
		p, err := json.Marshal(m.powerParameters())
		if err != nil {
			return false, err
		}
		fields["power_type"], fields["power_parameters"] = "ipmi", string(p)
	}
	files := map[string][]byte{s.Name: out, s.Name + ".out": out, s.Name + ".err": nil}
	if end.Result != "" {
		files[s.Name+".yaml"] = []byte(end.Result)
	}
	state := "WORKING"
	if end.TimedOut {
		state = "TIMEDOUT"
	}
	return exit != 0, c.signal(ctx, state, "", fields, files)
}

// install carries the plan out on the machine's disks.
func (m *Machine) install(ctx context.Context, c *metadata, t *api.Task, configURL string) error {
	p := t.Install
	if p == nil {
		return errors.New("task install without a plan")
	}
	if err := c.signal(ctx, "WORKING", "", nil, nil); err != nil {
		return err
	}
	if p.Firmware != m.cfg.Firmware.Mode() {
		return fmt.Errorf("the plan is for %s firmware, this machine booted by %s", p.Firmware, m.cfg.Firmware.Mode())
	}
	var disks map[string]*Disk
	if !p.Memory {
		var err error
		if disks, err = m.findDisks(p); err != nil {
			return err
		}
	} else if len(p.Storage) > 0 {
		return errors.New("a system in memory needs no disks")
	}
	c.event(ctx, "curtin", "cmd-install", "start", "")
	stage := func(name string, do func() error) error {
		if err := m.enter(ctx, name); err != nil {
			return err
		}
		c.event(ctx, "curtin", "cmd-install/stage-"+name, "start", "")
		if err := do(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.event(ctx, "curtin", "cmd-install/stage-"+name, "finish", "SUCCESS")
		return nil
	}
	sys := &installedSystem{Image: p.Image, Hostname: p.Hostname, Network: p.Network, Seed: p.Seed, Kernel: p.KernelOpts, Firmware: p.Firmware}
	if err := stage("partitioning", func() error {
		if p.Memory {
			return nil
		}
		err := m.layOut(p, disks, sys)
		m.changed()
		return err
	}); err != nil {
		return err
	}
	if err := stage("extract", func() error { return m.fetchImage(ctx, p.Image, configURL) }); err != nil {
		return err
	}
	if err := stage("curthooks", func() error { return nil }); err != nil {
		return err
	}
	if p.Memory {
		c.event(ctx, "curtin", "cmd-install", "finish", "SUCCESS")
		m.inMemory = sys
		return m.ok(ctx, c)
	}
	if err := m.enter(ctx, "netboot_off"); err != nil {
		return err
	}
	if err := c.netbootOff(ctx, t.SystemID); err != nil {
		return err
	}
	c.event(ctx, "curtin", "cmd-install", "finish", "SUCCESS")
	return m.ok(ctx, c)
}

func (c *metadata) netbootOff(ctx context.Context, systemID string) error {
	form := []byte(url.Values{"op": {"netboot_off"}}.Encode())
	u := c.root() + "2012-03-01/"
	if !c.authorized {
		u = c.root() + "latest/by-id/" + url.PathEscape(systemID) + "/"
	}
	if _, err := c.do(ctx, http.MethodPost, u, form, "application/x-www-form-urlencoded"); err != nil {
		return fmt.Errorf("netboot_off: %w", err)
	}
	return nil
}

func (m *Machine) fetchImage(ctx context.Context, i api.ImageSource, configURL string) error {
	rack, err := rackOf(configURL)
	if err != nil {
		return err
	}
	u := rack + "/images/" + strings.TrimLeft(i.Path, "/")
	for try := 0; ; try++ {
		_, err := m.get(ctx, u, "ingot-agent", false)
		if err == nil {
			break
		}
		if try >= len(m.cfg.Retry) {
			return err
		}
		if err := sleep(ctx, m.cfg.Retry[try]); err != nil {
			return err
		}
	}
	f := m.Fetches()
	last := f[len(f)-1]
	if last.SHA256 != i.SHA256 {
		return fmt.Errorf("the image has SHA-256 %s, the plan says %s", last.SHA256, i.SHA256)
	}
	if last.Bytes != i.Size {
		return fmt.Errorf("the image has %d bytes, the plan says %d", last.Bytes, i.Size)
	}
	return nil
}

// findDisk finds the one disk that a plan means and refuses to guess.
func (m *Machine) findDisk(id api.DiskID) (*Disk, error) {
	var found []*Disk
	for _, d := range m.disks {
		if id.Serial != "" && d.Serial == id.Serial || id.Serial == "" && (id.Path == "/dev/"+d.Name || id.Path == "" && id.Name == d.Name) {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("disk %s (serial %q, path %q) is found %d times", id.Name, id.Serial, id.Path, len(found))
	}
	if found[0].Size != id.Size {
		return nil, fmt.Errorf("disk %s has %d bytes, the plan says %d", id.Name, found[0].Size, id.Size)
	}
	return found[0], nil
}

func (m *Machine) erase(ctx context.Context, c *metadata, t *api.Task) error {
	if t.Erase == nil {
		return errors.New("task erase without a plan")
	}
	if err := c.signal(ctx, "WORKING", "", nil, nil); err != nil {
		return err
	}
	if err := m.enter(ctx, "erase"); err != nil {
		return err
	}
	c.event(ctx, "curtin", "erase", "start", "")
	for _, id := range t.Erase.Disks {
		d, err := m.findDisk(id)
		if err != nil {
			return err
		}
		how := map[string]string{"quick": "quick", "full": "overwritten with zeros", "secure": "overwritten with zeros instead of secure erase",
			"secure-or-quick": "quick instead of secure erase"}[t.Erase.Mode]
		if how == "" {
			return fmt.Errorf("unknown way to erase %q", t.Erase.Mode)
		}
		d.erase(t.Erase.Mode)
		m.step("agent", "erased "+d.Name+" ("+t.Erase.Mode+")")
		c.post(ctx, "curtin", "erase/"+d.Name, "finish", "SUCCESS", "Disk "+d.Name+": "+how)
	}
	m.changed()
	c.event(ctx, "curtin", "erase", "finish", "SUCCESS")
	return m.ok(ctx, c)
}
