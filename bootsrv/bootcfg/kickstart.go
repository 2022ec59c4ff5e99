package bootcfg

import (
	"fmt"
	"net/url"
	"regexp"

	"github.com/ingot-metal/ingot/api"
)

var (
	ifnameRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}:([0-9a-f]{2}:){5}[0-9a-f]{2}$`)
	// kernelNameRE are names that the kernel itself gives: renaming an interface to one of them races with it.
	kernelNameRE = regexp.MustCompile(`^eth[0-9]+:`)
	treeRE       = regexp.MustCompile(`^[A-Za-z0-9._~/?&=%:@,+\[\]-]+$`)
)

// kickstartLine returns the parameters of Anaconda: where its kickstart and its tree are, the network that it comes up with, and the names that
// the machine's interfaces are to have. What it writes to the disk holds neither its kickstart nor its logs of it: there are credentials in it.
func kickstartLine(m machine, r Request, img *api.BootImage) ([]param, error) {
	if !preseedRE.MatchString(img.PreseedPath) {
		return nil, fmt.Errorf("kickstart path %q is not allowed in a boot configuration", img.PreseedPath)
	}
	var out []param
	add := func(s ...string) {
		for _, t := range s {
			out = append(out, param{text: t})
		}
	}
	add("inst.ks="+r.Base()+img.PreseedPath, "inst.text", "inst.nosave=all_ks")
	for _, a := range []struct{ name, address string }{{"inst.repo", img.Tree}, {"inst.proxy", img.Proxy}} {
		if a.address == "" && a.name == "inst.proxy" {
			continue
		}
		u, err := url.Parse(a.address)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !treeRE.MatchString(a.address) {
			return nil, fmt.Errorf("%s %q is not allowed in a boot configuration", a.name, a.address)
		}
		add(a.name + "=" + a.address)
	}
	if r.Rack.Is4() {
		add("ip=dhcp")
	} else {
		add("ip=dhcp6")
	}
	for _, i := range img.Interfaces {
		if !ifnameRE.MatchString(i) {
			return nil, fmt.Errorf("interface %q is not allowed in a boot configuration", i)
		}
		if !kernelNameRE.MatchString(i) {
			add("ifname=" + i)
		}
	}
	if m.opts != "" {
		opts, err := splitOpts(m.opts)
		if err != nil {
			return nil, err
		}
		add(opts...)
	}
	return out, nil
}
