package windows

import (
	"fmt"
	"strings"
)

const plugin = "cloudbaseinit.plugins."

// servicePlugins are what the service does once Windows is up, in this order. Its own account's random password is never told to anybody:
// the MAAS service has no way to, and certificates and keys do without.
var servicePlugins = []string{
	"common.mtu.MTUPlugin", "windows.ntpclient.NTPClientPlugin", "common.sethostname.SetHostNamePlugin", "windows.createuser.CreateUserPlugin",
	"common.networkconfig.NetworkConfigPlugin", "windows.licensing.WindowsLicensingPlugin", "common.sshpublickeys.SetUserSSHPublicKeysPlugin",
	"windows.extendvolumes.ExtendVolumesPlugin", "common.setuserpassword.SetUserPasswordPlugin", "windows.winrmlistener.ConfigWinRMListenerPlugin",
	"windows.winrmcertificateauth.ConfigWinRMCertificateAuthPlugin", "common.localscripts.LocalScriptsPlugin", "common.userdata.UserDataPlugin",
}

// earlyPlugins are for the image that runs cloudbase-init while it is specialised. None reads user-data: that the first system's start is done is
// the service's to say.
var earlyPlugins = []string{"common.mtu.MTUPlugin", "common.sethostname.SetHostNamePlugin", "windows.extendvolumes.ExtendVolumesPlugin"}

// ini writes oslo.config's format.
type ini struct {
	b   strings.Builder
	err error
}

// set writes an option. The format has no way to quote: a value is printable ASCII on one line without blanks at its ends, and $ would be
// a reference to another option.
func (f *ini) set(name, value string) {
	if strings.TrimSpace(value) != value || strings.ContainsAny(value, "$") || strings.ContainsFunc(value, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		if f.err == nil {
			f.err = fmt.Errorf("the value of %s cannot be written into cloudbase-init's configuration", name)
		}
		return
	}
	f.b.WriteString(name + "=" + value + "\r\n")
}

// cloudbase is the configuration of the service, or of the run in the specialize pass.
func (in *Input) cloudbase(early bool) (string, error) {
	var f ini
	f.b.WriteString("[DEFAULT]\r\n")
	f.set("username", "Admin")
	f.set("groups", "Administrators")
	f.set("inject_user_password", "false")
	f.set("first_logon_behaviour", "no")
	f.set("real_time_clock_utc", "true")
	f.set("ntp_use_dhcp_config", "true")
	f.set("mtu_use_dhcp_config", "true")
	f.set("winrm_configure_https_listener", "true")
	f.set("winrm_configure_http_listener", "false")
	f.set("verbose", "true")
	f.set("debug", "false") // its debug log holds what it sends, the credentials among it
	f.set("logdir", `C:\Program Files\Cloudbase Solutions\Cloudbase-Init\log\`)
	f.set("check_latest_version", "false")
	plugins := servicePlugins
	if early {
		plugins = earlyPlugins
		f.set("logfile", "cloudbase-init-unattend.log")
		f.set("allow_reboot", "false")
		f.set("stop_service_on_exit", "false")
	} else {
		f.set("logfile", "cloudbase-init.log")
		f.set("local_scripts_path", `C:\Program Files\Cloudbase Solutions\Cloudbase-Init\LocalScripts\`)
	}
	f.set("plugins", plugin+strings.Join(plugins, ","+plugin))
	f.set("metadata_services", "cloudbaseinit.metadata.services.maasservice.MaaSHttpService")
	f.set("maas_metadata_url", in.MetadataURL)
	f.set("maas_oauth_consumer_key", in.Credentials.ConsumerKey)
	f.set("maas_oauth_consumer_secret", "")
	f.set("maas_oauth_token_key", in.Credentials.TokenKey)
	f.set("maas_oauth_token_secret", in.Credentials.TokenSecret)
	return f.b.String(), f.err
}
