package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/api"
)

// Result names of the built-in commissioning scripts that the agent stands in for.
const (
	resultInventory = "50-maas-01-commissioning"
	resultBMC       = "30-maas-01-bmc-config"
	resultCmdline   = "maas-kernel-cmdline"
)

// heartbeat is how often a long task says that it is alive.
const heartbeat = 60 * time.Second

// Config says how to run.
type Config struct {
	ConfigURL string // cloud-config-url
	BootIF    string // MAC that booted
	Console   io.Writer
	Root      string        // "/" outside tests
	Target    string        // where a new system is assembled; default /run/ingot/target
	Unit      time.Duration // scale of retry waits; 0: seconds
	HTTP      *http.Client  // nil: own
	// Light says that this is the light environment: there is no other init, and no ssh server but the agent's own.
	Light bool
	// Disks lists what is present; nil: the kernel's list.
	Disks func() ([]Disk, error)
	// DetectBMC is nil for the real one.
	DetectBMC func(ctx context.Context) (*BMC, error)
	// ApplyNetwork sets up a modelled network for scripts and returns what undoes it; nil for the real one.
	ApplyNetwork func(ctx context.Context, netplan map[string]any) (undo func() error, err error)
}

// Outcome is how a run ended.
type Outcome struct {
	Step api.TaskStep
	Then string // poweroff, reboot or stay
	// PowerState reports that cloud-init will do Then itself, from the preseed.
	PowerState bool
}

type agent struct {
	Config
	sys    system
	client *Client
	rep    *Reporter
	md     *Metadata
	cmd    commander

	bmcOnce  sync.Once
	bmcFound *BMC
	bmcErr   error
}

// Run fetches the task of this boot, carries it out and reports. An error has been reported to the region where that was possible;
// Outcome.Then then says what the machine should do.
func Run(ctx context.Context, c Config) (out Outcome, err error) {
	if c.Root == "" {
		c.Root = "/"
	}
	if c.Target == "" {
		c.Target = "/run/ingot/target"
	}
	if c.Console == nil {
		c.Console = os.Stdout
	}
	a := &agent{Config: c, sys: system{c.Root}, rep: NewReporter(c.Console)}
	a.client = NewClient(a.rep.Logf)
	a.client.Unit = c.Unit
	if c.HTTP != nil {
		a.client.HTTP = c.HTTP
	}
	a.cmd = commander{log: a.rep.Line}
	out.Then = "poweroff"

	rctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	reporting := make(chan struct{})
	go func() { defer close(reporting); _ = a.rep.Run(rctx) }()
	defer func() {
		fctx, cancel := context.WithTimeout(rctx, 30*time.Second)
		a.rep.Flush(fctx)
		cancel()
		stop()
		<-reporting
	}()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the agent itself failed: %v", p)
			a.rep.Line(string(debug.Stack()))
			a.fail(ctx, out.Step, err)
		}
	}()

	if _, err := checkURL(c.ConfigURL); err != nil {
		return out, err
	}
	// While the region is away nobody knows what this machine is for. One whose system is to run in memory must come back, so none is switched
	// off for that: it waits, and starts again in the end.
	comeBack := func(err error) {
		if away(err) {
			out.Then = "reboot"
		}
	}
	pre, err := a.client.Preseed(ctx, c.ConfigURL)
	if err != nil {
		comeBack(err)
		return out, fmt.Errorf("fetch preseed: %w", err)
	}
	a.attach(pre)
	out.PowerState = len(pre.PowerState) > 0
	task, err := a.task(ctx)
	if err != nil {
		comeBack(err)
		return out, fmt.Errorf("fetch task: %w", err)
	}
	if task.Step == api.TaskEnlist {
		out.Step, out.Then = task.Step, then(task)
		if task, err = a.enlist(ctx); err != nil {
			a.rep.Logf("enlistment failed: %v", err)
			return out, err
		}
		if task.Step == "" { // registered already, or nothing more to do
			return out, nil
		}
	}
	out.Step, out.Then = task.Step, then(task)
	a.rep.Logf("task: %s, then %s", task.Step, out.Then)
	beat, endBeat := context.WithCancel(ctx)
	defer endBeat()
	go a.heartbeat(beat)
	open := false
	for {
		if c.Light && out.Then == "stay" && !open { // rescue mode; a commissioning that its user wants to look into
			if err := a.serveSSH(ctx); err == nil {
				open = true
			} else if task.Step == api.TaskRescue {
				a.fail(ctx, task.Step, err)
				return out, err
			} else {
				a.rep.Logf("ssh: %v", err)
			}
		}
		switch task.Step {
		case api.TaskCommission:
			err = a.commission(ctx)
		case api.TaskTest:
			err = a.test(ctx)
		case api.TaskInstall:
			err = a.install(ctx, task)
			if err == nil && task.Install.Memory {
				out.Then = thenSwitchRoot
			}
		case api.TaskErase:
			err = a.erase(ctx, task)
		case api.TaskRescue:
			err = a.md.Signal(ctx, Signal{Status: "OK"})
		case api.TaskPowerOff:
		default:
			err = fmt.Errorf("task %q is not known to this agent", task.Step)
			a.fail(ctx, task.Step, err)
		}
		if err != nil || task.Then != "next" {
			return out, err
		}
		if task, err = a.task(ctx); err != nil {
			return out, fmt.Errorf("fetch task: %w", err)
		}
		out.Step, out.Then = task.Step, then(task)
		a.rep.Logf("next task: %s, then %s", task.Step, out.Then)
	}
}

func then(t api.Task) string {
	switch t.Then {
	case "reboot", "stay":
		return t.Then
	}
	return "poweroff"
}

func (a *agent) attach(p Preseed) {
	a.md = metadataFor(a.client, p)
	a.rep.Attach(a.md)
}

// task asks what this boot is for. Without credentials, and where nobody says otherwise, it is for enlistment.
func (a *agent) task(ctx context.Context) (api.Task, error) {
	t, err := a.md.Task(ctx)
	var he *HTTPError
	if a.md.Anonymous() && errors.As(err, &he) && he.Status == http.StatusNotFound {
		return api.Task{Step: api.TaskEnlist, Then: "poweroff"}, nil
	}
	return t, err
}

func (a *agent) heartbeat(ctx context.Context) {
	t := time.NewTicker(heartbeat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := a.md.Signal(ctx, Signal{Status: "WORKING"}); err != nil && ctx.Err() == nil {
				a.rep.Logf("heartbeat: %v", err)
			}
		}
	}
}

// fail reports a failed step. The signal insists; the log has the rest.
func (a *agent) fail(ctx context.Context, step api.TaskStep, err error) {
	a.rep.Logf("%s failed: %v", step, err)
	if a.md == nil || a.md.Anonymous() {
		return
	}
	if serr := a.md.Signal(ctx, Signal{Status: "FAILED", Error: clip(err.Error(), 2000)}); serr != nil {
		a.rep.Logf("the failure could not be reported: %v", serr)
	}
}

// bmc sets up the account on the BMC once per boot: every time makes a new password, and the region must have the last one.
func (a *agent) bmc(ctx context.Context) (*BMC, error) {
	a.bmcOnce.Do(func() {
		if a.DetectBMC != nil {
			a.bmcFound, a.bmcErr = a.DetectBMC(ctx)
			return
		}
		a.bmcFound, a.bmcErr = DetectBMC(ctx, a.Root, a.rep.Logf)
	})
	return a.bmcFound, a.bmcErr
}

// enlist registers the machine, takes the credentials that come with its preseed, and returns the task that follows.
func (a *agent) enlist(ctx context.Context) (api.Task, error) {
	macs := a.sys.MACs(a.BootIF)
	if len(macs) == 0 {
		return api.Task{}, errors.New("this machine has no network interface to register")
	}
	u, err := checkURL(a.ConfigURL)
	if err != nil {
		return api.Task{}, err
	}
	base := u.Scheme + "://" + u.Host + "/MAAS/"
	q := url.Values{"op": {"is_registered"}, "mac_address": {strings.Join(macs, ",")}}
	b, err := a.client.do(ctx, request{method: "GET", url: base + "api/2.0/machines/?" + q.Encode()})
	if err != nil {
		return api.Task{}, fmt.Errorf("is_registered: %w", err)
	}
	if strings.TrimSpace(string(b)) == "true" {
		a.rep.Logf("a machine with one of %s is registered already", strings.Join(macs, ", "))
		return api.Task{}, nil
	}
	form := url.Values{"architecture": {DebianArch() + "/generic"}, "mac_addresses": {strings.Join(macs, ",")}, "commission": {"True"}}
	bmc, err := a.bmc(ctx)
	if err != nil {
		a.rep.Logf("%v; enlisting without power control", err)
	}
	if bmc != nil {
		p, err := json.Marshal(bmc.Parameters)
		if err != nil {
			return api.Task{}, err
		}
		form.Set("power_type", bmc.Type)
		form.Set("power_parameters", string(p))
	}
	post := func() ([]byte, error) {
		return a.client.do(ctx, request{method: "POST", url: base + "api/2.0/machines/", contentType: "application/x-www-form-urlencoded", body: []byte(form.Encode())})
	}
	a.rep.Logf("registering %s with %s", form.Get("architecture"), form.Get("mac_addresses"))
	b, err = post()
	var he *HTTPError
	if errors.As(err, &he) && bmc != nil {
		a.rep.Logf("the region refused the machine with its power parameters (%d); once more without", he.Status)
		form.Del("power_type")
		form.Del("power_parameters")
		b, err = post()
	}
	if err != nil {
		return api.Task{}, fmt.Errorf("register: %w", err)
	}
	var m struct {
		SystemID string `json:"system_id"`
	}
	if err := json.Unmarshal(b, &m); err != nil || m.SystemID == "" {
		return api.Task{}, fmt.Errorf("register: the answer names no system_id")
	}
	a.rep.Logf("registered as %s", m.SystemID)
	a.ConfigURL = base + "metadata/latest/by-id/" + url.PathEscape(m.SystemID) + "/?op=get_preseed"
	pre, err := a.client.Preseed(ctx, a.ConfigURL)
	if err != nil {
		return api.Task{}, fmt.Errorf("fetch preseed: %w", err)
	}
	a.attach(pre)
	if a.md.Anonymous() {
		return api.Task{}, nil
	}
	t, err := a.md.Task(ctx)
	if err != nil {
		return api.Task{}, fmt.Errorf("fetch task: %w", err)
	}
	if t.Step == api.TaskEnlist {
		return api.Task{}, nil
	}
	return t, nil
}

// commission takes stock and reports it under the names of MAAS's scripts, and runs the scripts that the server has beside those.
func (a *agent) commission(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			a.fail(ctx, api.TaskCommission, err)
		}
	}()
	for _, name := range []string{resultCmdline, resultBMC} {
		if _, err := a.standIn(ctx, name); err != nil {
			return err
		}
	}
	// What runs before the inventory may add to it: a storage layout, say.
	if err := a.beforeInventory(ctx); err != nil {
		return err
	}
	if _, err := a.standIn(ctx, resultInventory); err != nil {
		return err
	}
	if err := a.runGroup(ctx, "commissioning_scripts", func(name string) (bool, error) { return a.standIn(ctx, name) }); err != nil {
		return err
	}
	if err := a.runGroup(ctx, "testing_scripts", func(string) (bool, error) { return false, nil }); err != nil {
		return err
	}
	return inStep("report", a.md.Signal(ctx, Signal{Status: "OK"}))
}

// beforeInventory runs the users' scripts whose names sort before the inventory's: those that run alone and are about no device, for which
// devices there are is what the inventory is to tell.
func (a *agent) beforeInventory(ctx context.Context) error {
	set, err := a.scripts(ctx, "commissioning_scripts")
	if err != nil {
		return inStep("scripts", err)
	}
	for _, s := range set.items {
		if s.Default || s.HardwareType != 0 || s.Parallel != parallelNo || s.Name >= resultInventory || s.aboutDevices() {
			continue
		}
		failed, err := a.runBatch(ctx, []scriptItem{s}, set.netplan)
		if err != nil {
			return err
		}
		if len(failed) > 0 {
			return fmt.Errorf("the script %s failed", s.Name)
		}
	}
	return nil
}

// standIn does the work of a built-in script of MAAS and reports it. It says whether it is one that the agent stands in for.
func (a *agent) standIn(ctx context.Context, name string) (bool, error) {
	zero, start := 0, time.Now()
	result := func(data []byte, more Signal) (bool, error) {
		more.Status, more.Name, more.ExitStatus, more.Runtime = "WORKING", name, &zero, time.Since(start)
		if more.Files == nil {
			more.Files = map[string][]byte{}
		}
		more.Files[name], more.Files[name+".out"] = data, data
		return true, inStep(name, a.md.Signal(ctx, more))
	}
	switch name {
	case resultCmdline:
		return result([]byte(a.sys.read("proc/cmdline")+"\n"), Signal{})
	case resultBMC:
		bmc, err := a.bmc(ctx)
		switch {
		case err != nil: // a machine without remote power is still a machine
			a.rep.Logf("%v", err)
			return result([]byte(err.Error()+"\n"), Signal{})
		case bmc != nil:
			text := fmt.Sprintf("%s at %s, user %s\n", bmc.Type, bmc.Parameters["power_address"], bmc.Parameters["power_user"])
			return result([]byte(text), Signal{PowerType: bmc.Type, PowerParameters: bmc.Parameters})
		}
		a.rep.Logf("no BMC found")
		return result([]byte("no BMC found\n"), Signal{Files: map[string][]byte{name + ".yaml": []byte("status: skipped\n")}})
	case resultInventory:
		inv, err := a.inventory()
		if err != nil {
			return true, inStep("inventory", err)
		}
		data, err := json.MarshalIndent(inv, "", " ")
		if err != nil {
			return true, err
		}
		if _, err := result(data, Signal{}); err != nil {
			return true, err
		}
		a.rep.Logf("inventory sent: %d bytes", len(data))
		return true, nil
	}
	return false, nil
}

func (a *agent) disks() ([]Disk, error) {
	if a.Disks != nil {
		return a.Disks()
	}
	return a.sys.Disks()
}

// waitDisks gives slow controllers time: it returns when every wanted disk could be matched, or after a while with what is there.
func (a *agent) waitDisks(ctx context.Context, want []api.DiskID) ([]Disk, error) {
	for i := 0; ; i++ {
		ds, err := a.disks()
		if err != nil {
			return nil, err
		}
		missing := false
		for _, id := range want {
			if _, err := matchDisk(id, idleDisks(ds)); err != nil {
				missing = true
			}
		}
		if !missing || i >= 20 {
			return ds, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (a *agent) install(ctx context.Context, t api.Task) (err error) {
	a.rep.Start(stageInstall, "Installing")
	defer func() {
		a.rep.Finish(stageInstall, "Installing", err, a.rep.LogFile("/tmp/install.log"))
		fctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		a.rep.Flush(fctx)
		cancel()
		if err != nil {
			a.fail(ctx, api.TaskInstall, err)
			return
		}
		err = inStep("report", a.md.Signal(ctx, Signal{Status: "OK"}))
	}()
	if t.Install == nil {
		return errors.New("the task has no install plan")
	}
	if t.Install.Memory {
		if !a.Light {
			return errors.New("a system can be deployed to memory from the light environment only: here another init is running, and it cannot be replaced (that takes systemd 254 and more); set ingot_boot_environment=light and deploy again")
		}
		in := &installer{plan: *t.Install, configURL: a.ConfigURL, client: a.client, rep: a.rep, cmd: a.cmd, firmware: Firmware(a.Root), mountAt: memoryRoot}
		return in.run(ctx, nil)
	}
	var ids []api.DiskID
	for _, it := range t.Install.Storage {
		if it.Type == api.StorageDisk && it.Disk != nil {
			ids = append(ids, *it.Disk)
		}
	}
	present, err := a.waitDisks(ctx, ids)
	if err != nil {
		return err
	}
	in := &installer{plan: *t.Install, configURL: a.ConfigURL, client: a.client, rep: a.rep, cmd: a.cmd, firmware: Firmware(a.Root), mountAt: a.Target,
		devDir: "/dev", list: a.disks}
	if err := in.run(ctx, present); err != nil {
		return err
	}
	a.rep.Start(stageLate, "Next boot from disk")
	err = inStep("stage-late", a.md.NetbootOff(ctx))
	a.rep.Finish(stageLate, "Next boot from disk", err)
	return err
}

func (a *agent) erase(ctx context.Context, t api.Task) (err error) {
	const name = "erase"
	a.rep.Start(name, "Erasing disks")
	defer func() {
		a.rep.Finish(name, "Erasing disks", err)
		if err != nil {
			a.fail(ctx, api.TaskErase, err)
			return
		}
		err = inStep("report", a.md.Signal(ctx, Signal{Status: "OK"}))
	}()
	if t.Erase == nil {
		return errors.New("the task has no erase plan")
	}
	present, err := a.waitDisks(ctx, t.Erase.Disks)
	if err != nil {
		return err
	}
	if present, err = freeDisks(ctx, a.cmd, a.rep.Logf, a.disks, t.Erase.Disks, present); err != nil {
		return err
	}
	e := eraser{cmd: a.cmd, logf: a.rep.Logf, progress: func(s string) { a.rep.Progress(name, s); a.rep.Logf("%s", s) },
		result: func(disk, how string, err error) {
			a.rep.Finish(name+"/"+disk, fmt.Sprintf("Disk %s: %s", disk, how), err)
		}}
	return e.erase(ctx, *t.Erase, present)
}

// ReportCrash tells the region that the agent died, with its last words. It is run by a fresh process.
func ReportCrash(ctx context.Context, c Config, words string) error {
	rep := NewReporter(io.Discard)
	cl := NewClient(rep.Logf)
	cl.Unit = c.Unit
	pre, err := cl.Preseed(ctx, c.ConfigURL)
	if err != nil {
		return err
	}
	md := metadataFor(cl, pre)
	if md.Anonymous() {
		return nil
	}
	return md.Signal(ctx, Signal{Status: "FAILED", Error: clip("the agent died: "+words, 2000)})
}

// End makes the machine do what an outcome says, in a system that has an init of its own. The agent runs inside cloud-init's last
// stage there: a machine that went down at once would kill that stage, which would report itself as failed.
func End(ctx context.Context, o Outcome, logf func(string, ...any)) error {
	if o.Then == "stay" || o.PowerState { // with power_state in the preseed, cloud-init does it when its last stage is over
		return nil
	}
	verb := "poweroff"
	if o.Then == "reboot" {
		verb = "reboot"
	}
	cmd := commander{log: func(s string) { logf("%s", s) }}
	if ctl := find("/", "systemctl"); ctl != "" && find("/", "systemd-run") != "" {
		err := cmd.run(ctx, "systemd-run", "--no-block", "--collect", "--quiet", "--property=After=cloud-final.service", "--property=Type=oneshot", ctl, "--no-block", verb)
		if err == nil {
			return nil
		}
		logf("%v", err)
	}
	return cmd.run(ctx, "systemctl", "--no-block", verb)
}
