package windows

// The scripts are constant: they read what differs from machine to machine out of files, as data. Every step may be repeated, and a step that
// fails is logged and does not keep the others from being done.

// setupScript sets the access lists, and starts OpenSSH and WinRM. It runs once while Windows is being specialised, where no network is, and
// again as cloudbase-init's local script.
const setupScript = `
# Written by Ingot at the machine's deployment.
param([ValidateSet('Specialize', 'Service')][string]$Stage = 'Service')

$ErrorActionPreference = 'Stop'
$base = Join-Path $env:ProgramData 'Ingot'
$log = Join-Path $base 'setup.log'
$keys = Join-Path $env:ProgramData 'ssh\administrators_authorized_keys'
$conf = Join-Path $env:ProgramFiles 'Cloudbase Solutions\Cloudbase-Init\conf'

function Step([string]$Name, [scriptblock]$Do) {
    try {
        & $Do
        Add-Content -LiteralPath $log -Value ('{0:s} {1} {2}: done' -f (Get-Date), $Stage, $Name)
    } catch {
        Add-Content -LiteralPath $log -Value ('{0:s} {1} {2}: {3}' -f (Get-Date), $Stage, $Name, $_.Exception.Message)
    }
}

# Only the system and the administrators, by their security identifiers: names of groups differ between languages.
function Protect-Path([string]$Path) {
    & icacls.exe $Path /inheritance:r /grant '*S-1-5-18:F' /grant '*S-1-5-32-544:F' | Out-Null
    if ($LASTEXITCODE -ne 0) { throw "icacls ended with $LASTEXITCODE" }
}

Step 'credentials of cloudbase-init' {
    foreach ($f in Get-ChildItem -LiteralPath $conf -Filter '*.conf') { Protect-Path $f.FullName }
}

Step 'keys of administrators' {
    if (Test-Path -LiteralPath $keys) {
        & icacls.exe $keys /setowner '*S-1-5-32-544' | Out-Null
        Protect-Path $keys
    }
}

Step 'OpenSSH server' {
    if (-not (Test-Path -LiteralPath $keys)) { return }
    if (-not (Get-Service -Name sshd -ErrorAction SilentlyContinue)) {
        if ($Stage -eq 'Specialize') { return }
        Add-WindowsCapability -Online -Name 'OpenSSH.Server~~~~0.0.1.0' | Out-Null
    }
    Set-Service -Name sshd -StartupType Automatic
    if ($Stage -eq 'Service') {
        Start-Service -Name sshd
        if (-not (Get-NetFirewallRule -Name 'Ingot-SSH' -ErrorAction SilentlyContinue)) {
            New-NetFirewallRule -Name 'Ingot-SSH' -DisplayName 'OpenSSH server' -Direction Inbound -Action Allow -Protocol TCP -LocalPort 22 | Out-Null
        }
    }
}

Step 'WinRM over HTTPS' {
    Set-Service -Name WinRM -StartupType Automatic
    if ($Stage -ne 'Service') { return }
    Start-Service -Name WinRM
    $https = Get-ChildItem -Path WSMan:\localhost\Listener | Where-Object { $_.Keys -contains 'Transport=HTTPS' }
    if (-not $https) {
        $cert = New-SelfSignedCertificate -DnsName $env:COMPUTERNAME -CertStoreLocation Cert:\LocalMachine\My
        New-Item -Path WSMan:\localhost\Listener -Transport HTTPS -Address '*' -CertificateThumbPrint $cert.Thumbprint -Force | Out-Null
    }
    Get-ChildItem -Path WSMan:\localhost\Listener | Where-Object { $_.Keys -contains 'Transport=HTTP' } | Remove-Item -Recurse -Force
    if (-not (Get-NetFirewallRule -Name 'Ingot-WinRM-HTTPS' -ErrorAction SilentlyContinue)) {
        New-NetFirewallRule -Name 'Ingot-WinRM-HTTPS' -DisplayName 'WinRM over HTTPS' -Direction Inbound -Action Allow -Protocol TCP -LocalPort 5986 | Out-Null
    }
}

if ($Stage -eq 'Service') {
    Step 'routes' {
        $file = Join-Path $base 'routes.json'
        if (-not (Test-Path -LiteralPath $file)) { return }
        foreach ($r in (Get-Content -LiteralPath $file -Raw | ConvertFrom-Json)) {
            $have = Get-NetRoute -DestinationPrefix $r.destination -NextHop $r.next_hop -ErrorAction SilentlyContinue
            if (-not $have) {
                New-NetRoute -DestinationPrefix $r.destination -NextHop $r.next_hop -InterfaceAlias $r.interface -RouteMetric $r.metric | Out-Null
            }
        }
    }
    Step 'answer files' {
        foreach ($f in 'Panther\Unattend\Unattend.xml', 'Panther\unattend.xml') {
            $path = Join-Path $env:SystemRoot $f
            if (Test-Path -LiteralPath $path) { Remove-Item -LiteralPath $path -Force }
        }
    }
}
exit 0
`

// localScript is what cloudbase-init runs.
const localScript = `
# Written by Ingot at the machine's deployment.
& (Join-Path $env:ProgramData 'Ingot\setup.ps1') -Stage Service
exit 0
`
