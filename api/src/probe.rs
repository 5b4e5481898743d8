//! Probes and access credentials: what a cluster does to a guest from outside.

use crate::schema::IntOrString;
use crate::schema::Status::Part;

object! {
    "A question put to the guest again and again."
    Probe {
        exec "exec": Option<ExecAction>, Part, "Runs a command in the guest.";
        guest_agent_ping "guestAgentPing": Option<GuestAgentPing>, Part, "Asks the guest agent.";
        http_get "httpGet": Option<HttpGetAction>, Part, "Sends an HTTP request.";
        tcp_socket "tcpSocket": Option<TcpSocketAction>, Part, "Opens a connection.";
        initial_delay_seconds "initialDelaySeconds": Option<i32>, Part, "Wait before the first.";
        timeout_seconds "timeoutSeconds": Option<i32>, Part, "Wait for an answer.";
        period_seconds "periodSeconds": Option<i32>, Part, "From one to the next.";
        success_threshold "successThreshold": Option<i32>, Part, "Good answers until it is well.";
        failure_threshold "failureThreshold": Option<i32>, Part, "Bad answers until it is not.";
    }

    "Runs a command in the guest."
    ExecAction {
        command "command": Vec<String>, Part, "The command.";
    }

    "Asks the guest agent."
    GuestAgentPing {}

    "Sends an HTTP request."
    HttpGetAction {
        host "host": Option<String>, Part, "To whom.";
        http_headers "httpHeaders": Vec<HttpHeader>, Part, "With which headers.";
        path "path": Option<String>, Part, "For what.";
        port "port": IntOrString, Part, "On which port.";
        scheme "scheme": Option<String>, Part, "`HTTP` or `HTTPS`.";
    }

    "A header of a request."
    HttpHeader {
        name "name": String, Part, "Its name.";
        value "value": String, Part, "Its value.";
    }

    "Opens a connection."
    TcpSocketAction {
        host "host": Option<String>, Part, "To whom.";
        port "port": IntOrString, Part, "On which port.";
    }

    "A credential put into the guest."
    AccessCredential {
        ssh_public_key "sshPublicKey": Option<SshPublicKey>, Part, "A key.";
        user_password "userPassword": Option<UserPassword>, Part, "A password.";
    }

    "A key put into the guest."
    SshPublicKey {
        source "source": CredentialSource, Part, "Where it is.";
        propagation_method "propagationMethod": KeyPropagation, Part, "How it gets in.";
    }

    "A password put into the guest."
    UserPassword {
        source "source": CredentialSource, Part, "Where it is.";
        propagation_method "propagationMethod": PasswordPropagation, Part, "How it gets in.";
    }

    "Where a credential is."
    CredentialSource {
        secret "secret": Option<CredentialSecret>, Part, "In a secret.";
    }

    "A secret that holds a credential."
    CredentialSecret {
        secret_name "secretName": String, Part, "Its name.";
    }

    "How a key gets into the guest."
    KeyPropagation {
        config_drive "configDrive": Option<NoSettings>, Part, "By cloud-init's config drive.";
        no_cloud "noCloud": Option<NoSettings>, Part, "By cloud-init's NoCloud.";
        qemu_guest_agent "qemuGuestAgent": Option<KeyUsers>, Part, "By the guest agent.";
    }

    "Users that get a key."
    KeyUsers {
        users "users": Vec<String>, Part, "Their names.";
    }

    "How a password gets into the guest."
    PasswordPropagation {
        qemu_guest_agent "qemuGuestAgent": Option<NoSettings>, Part, "By the guest agent.";
    }

    "A choice without settings."
    NoSettings {}
}
