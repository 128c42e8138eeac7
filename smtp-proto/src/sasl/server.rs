//! The server's side of an exchange.
//!
//! Invariant: who the users are is asked, never known: a machine that needs a password checked, keys or a secret
//! says so ([`Progress::Ask`]) and waits for the answer. An unknown user is answered like a known one up to the end.
//!
//! Standards: see [`sasl`](super).
//!
//! Not here: AUTH, base64, replies (the session), the store of credentials and lock-out (smtp-server).

use super::scram::{self, ScramKeys};
use super::{ChannelBinding, Mechanism, SaslError, Secret, cram_digest, is_equal, text};

/// What an exchange needs from its surroundings.
#[derive(Debug, Clone)]
pub struct Setup {
    /// 18 fresh random octets, for nonces.
    pub random: [u8; 18],
    /// A secret that stays the same for months: unknown users get salts made from it.
    pub decoy: [u8; 32],
    /// Our host name, for the challenge of CRAM-MD5.
    pub hostname: Box<str>,
    /// What the TLS connection offers for -PLUS; empty without TLS.
    pub bindings: Vec<ChannelBinding>,
    /// Whether a -PLUS mechanism was offered, so that a client that thinks otherwise was lied to.
    pub plus_offered: bool,
}

/// How far an exchange is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Send this to the client.
    Challenge(Vec<u8>),
    /// Answer this question with [`Exchange::answer`].
    Ask(Request),
    /// The client is who it says it is: succeed.
    Accepted(Identity),
    /// Refuse with 535 5.7.8; the reason is for the log alone.
    Refused(SaslError),
}

/// Who the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose credentials were used; empty for EXTERNAL, where the certificate says it.
    pub user: Box<str>,
    /// As whom the client wants to act, if not as the user. Whether it may is the embedder's business.
    pub acts_as: Option<Box<str>>,
}

/// A question about users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Is this the password? Answer with [`Answer::Verified`].
    Password {
        /// Who the client says it is.
        identity: Identity,
        /// What it gave as password.
        password: Secret,
    },
    /// Is this token good? Answer with [`Answer::Verified`].
    Token {
        /// Who the client says it is.
        identity: Identity,
        /// The token.
        token: Secret,
    },
    /// Does the client certificate stand for this identity? Answer with [`Answer::Verified`].
    Certificate(Identity),
    /// What is the password of this user? Answer with [`Answer::Password`].
    Reveal {
        /// The user.
        user: Box<str>,
    },
    /// What are the keys of this user? Answer with [`Answer::Keys`].
    Keys {
        /// The user.
        user: Box<str>,
        /// For which hash function.
        hash: scram::Hash,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Yes or no.
    Verified(bool),
    /// The password, if the user exists and it is kept.
    Password(Option<Secret>),
    /// The keys, if the user exists and has such keys.
    Keys(Option<ScramKeys>),
}

/// One exchange.
#[derive(Debug)]
pub struct Exchange {
    setup: Setup,
    mechanism: Mechanism,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was said yet.
    Start,
    /// The client has been asked for its first message.
    Initial,
    LoginPassword {
        user: Box<str>,
    },
    CramDigest {
        challenge: String,
    },
    CramSecret {
        user: Box<str>,
        digest: Box<str>,
        challenge: String,
    },
    Verifying(Identity),
    /// A refused token: the client has one more message to send.
    BearerFailed,
    ScramKeys(ScramFirst),
    ScramProof {
        first: ScramFirst,
        keys: ScramKeys,
        server_first: String,
        nonce: String,
        known: bool,
    },
    /// The proof was good and ours was sent; the client answers with nothing.
    ScramLast(Identity),
    Over,
}

#[derive(Debug)]
struct ScramFirst {
    identity: Identity,
    bare: String,
    client_nonce: String,
    /// The GS2 header and the binding data: what `c=` must hold.
    bound: Vec<u8>,
}

impl Exchange {
    /// An exchange of `mechanism`.
    pub fn new(mechanism: Mechanism, setup: Setup) -> Exchange {
        Exchange { setup, mechanism, state: State::Start }
    }

    /// Takes a message of the client: the initial response of AUTH (`None` if there was none), and then each
    /// answer to a challenge.
    pub fn step(&mut self, message: Option<&[u8]>) -> Progress {
        self.try_step(message).unwrap_or_else(|error| self.refuse(error))
    }

    /// Takes the answer to [`Progress::Ask`].
    pub fn answer(&mut self, answer: Answer) -> Progress {
        match (std::mem::replace(&mut self.state, State::Over), answer) {
            (State::Verifying(identity), Answer::Verified(true)) => Progress::Accepted(identity),
            (State::Verifying(_), Answer::Verified(false)) if self.is_bearer() => {
                self.state = State::BearerFailed;
                // RFC 7628 3.2.2 and XOAUTH2: say why in JSON, wait for the client's acknowledgement, then refuse.
                Progress::Challenge(br#"{"status":"invalid_token","schemes":"bearer"}"#.to_vec())
            }
            (State::CramSecret { user, digest, challenge }, Answer::Password(password)) => {
                let known = password.is_some();
                let password = password.unwrap_or_else(|| Secret::new(""));
                let expected = cram_digest(password.expose(), challenge.as_bytes());
                if is_equal(expected.as_bytes(), digest.as_bytes()) && known {
                    Progress::Accepted(Identity { user, acts_as: None })
                } else {
                    self.refuse(SaslError::Refused)
                }
            }
            (State::ScramKeys(first), Answer::Keys(keys)) => self.scram_challenge(first, keys),
            _ => self.refuse(SaslError::Refused),
        }
    }

    fn refuse(&mut self, error: SaslError) -> Progress {
        self.state = State::Over;
        Progress::Refused(error)
    }

    fn is_bearer(&self) -> bool {
        matches!(self.mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer)
    }

    fn try_step(&mut self, message: Option<&[u8]>) -> Result<Progress, SaslError> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let message = match (&state, message) {
            (State::Start, None) => return Ok(self.speak_first()),
            // CRAM-MD5 has no initial response (RFC 4954 4: the server speaks first).
            (State::Start, Some(_)) if self.mechanism == Mechanism::CramMd5 => {
                return Err(SaslError::Malformed);
            }
            (_, Some(message)) => text(message)?,
            (_, None) => return Err(SaslError::Malformed),
        };
        match state {
            State::Start | State::Initial => self.first_message(message),
            State::LoginPassword { user } => {
                let identity = Identity { user, acts_as: None };
                Ok(self.ask_password(identity, message))
            }
            State::CramDigest { challenge } => {
                let (user, digest) = message.rsplit_once(' ').ok_or(SaslError::Malformed)?;
                self.state = State::CramSecret { user: user.into(), digest: digest.into(), challenge };
                Ok(Progress::Ask(Request::Reveal { user: user.into() }))
            }
            State::ScramProof { first, keys, server_first, nonce, known } => {
                self.scram_verify(message, first, &keys, &server_first, &nonce, known)
            }
            State::ScramLast(identity) if message.is_empty() => Ok(Progress::Accepted(identity)),
            State::BearerFailed => Err(SaslError::Refused),
            _ => Err(SaslError::Malformed),
        }
    }

    fn speak_first(&mut self) -> Progress {
        match self.mechanism {
            Mechanism::CramMd5 => {
                let random: String = self.setup.random.iter().map(|octet| format!("{octet:02x}")).collect();
                let challenge = format!("<{random}@{}>", self.setup.hostname);
                self.state = State::CramDigest { challenge: challenge.clone() };
                Progress::Challenge(challenge.into_bytes())
            }
            Mechanism::Login => {
                self.state = State::Initial;
                Progress::Challenge(b"Username:".to_vec())
            }
            _ => {
                self.state = State::Initial;
                Progress::Challenge(Vec::new())
            }
        }
    }

    fn first_message(&mut self, message: &str) -> Result<Progress, SaslError> {
        match self.mechanism {
            Mechanism::Login => {
                self.state = State::LoginPassword { user: message.into() };
                Ok(Progress::Challenge(b"Password:".to_vec()))
            }
            Mechanism::Plain => {
                let mut parts = message.split('\0');
                let (Some(acts_as), Some(user), Some(password), None) =
                    (parts.next(), parts.next(), parts.next(), parts.next())
                else {
                    return Err(SaslError::Malformed);
                };
                Ok(self.ask_password(identity(user, acts_as)?, password))
            }
            Mechanism::External => {
                let identity = Identity { user: "".into(), acts_as: non_empty(message) };
                self.state = State::Verifying(identity.clone());
                Ok(Progress::Ask(Request::Certificate(identity)))
            }
            Mechanism::XOAuth2 | Mechanism::OAuthBearer => self.bearer(message),
            Mechanism::CramMd5 => Err(SaslError::Malformed),
            Mechanism::ScramSha1
            | Mechanism::ScramSha256
            | Mechanism::ScramSha1Plus
            | Mechanism::ScramSha256Plus => self.scram_first(message),
        }
    }

    fn ask_password(&mut self, identity: Identity, password: &str) -> Progress {
        if identity.user.is_empty() || identity.user.contains('\0') || password.is_empty() {
            return self.refuse(SaslError::Malformed);
        }
        self.state = State::Verifying(identity.clone());
        Progress::Ask(Request::Password { identity, password: Secret::new(password) })
    }

    fn bearer(&mut self, message: &str) -> Result<Progress, SaslError> {
        let mut parts = message.strip_suffix("\u{1}\u{1}").ok_or(SaslError::Malformed)?.split('\u{1}');
        let head = parts.next().ok_or(SaslError::Malformed)?;
        let user = if self.mechanism == Mechanism::OAuthBearer {
            let mut header = head.split(',');
            let flag = header.next().unwrap_or_default();
            let user = header.next().and_then(|part| part.strip_prefix("a=")).unwrap_or_default();
            if !matches!(flag, "n" | "y") || header.next() != Some("") || header.next().is_some() {
                return Err(SaslError::Malformed);
            }
            scram::unescape(user)?
        } else {
            head.strip_prefix("user=").ok_or(SaslError::Malformed)?.to_owned()
        };
        let token = parts.find_map(|part| part.strip_prefix("auth=")).ok_or(SaslError::Malformed)?;
        let (scheme, token) = token.split_once(' ').ok_or(SaslError::Malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(SaslError::Malformed);
        }
        let identity = Identity { user: user.into(), acts_as: None };
        self.state = State::Verifying(identity.clone());
        Ok(Progress::Ask(Request::Token { identity, token: Secret::new(token) }))
    }

    fn scram_first(&mut self, message: &str) -> Result<Progress, SaslError> {
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(acts_as), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SaslError::Malformed);
        };
        let binding = self.binding(flag)?;
        let bound = [format!("{flag},{acts_as},").as_bytes(), &binding].concat();
        let acts_as = match acts_as.strip_prefix("a=") {
            Some(name) => scram::unescape(name)?,
            None if acts_as.is_empty() => String::new(),
            None => return Err(SaslError::Malformed),
        };
        let mut attributes = bare.split(',');
        let user = scram::unescape(scram::attribute(&mut attributes, 'n')?)?;
        let client_nonce = scram::attribute(&mut attributes, 'r')?;
        if client_nonce.is_empty() {
            return Err(SaslError::Malformed);
        }
        let first = ScramFirst {
            identity: identity(&user, &acts_as)?,
            bare: bare.to_owned(),
            client_nonce: client_nonce.to_owned(),
            bound,
        };
        self.state = State::ScramKeys(first);
        let hash = self.mechanism.hash().ok_or(SaslError::Malformed)?;
        Ok(Progress::Ask(Request::Keys { user: user.into(), hash }))
    }

    /// The binding data that the client's GS2 flag calls for (RFC 5802 6).
    fn binding(&self, flag: &str) -> Result<Vec<u8>, SaslError> {
        match (flag, flag.strip_prefix("p=")) {
            (_, Some(name)) if self.mechanism.is_bound() => {
                let binding = self.setup.bindings.iter().find(|binding| binding.name() == name);
                Ok(binding.ok_or(SaslError::NoBinding)?.data().to_vec())
            }
            ("n", _) if !self.mechanism.is_bound() => Ok(Vec::new()),
            // The client believes that we cannot bind: if we offered it, someone took the offer away.
            ("y", _) if !self.mechanism.is_bound() && !self.setup.plus_offered => Ok(Vec::new()),
            _ => Err(SaslError::NoBinding),
        }
    }

    fn scram_challenge(&mut self, first: ScramFirst, keys: Option<ScramKeys>) -> Progress {
        let Some(hash) = self.mechanism.hash() else { return self.refuse(SaslError::Malformed) };
        let keys = keys.filter(|keys| keys.hash == hash);
        let known = keys.is_some();
        let keys = keys.unwrap_or_else(|| ScramKeys::decoy(hash, &first.identity.user, &self.setup.decoy));
        let nonce = format!("{}{}", first.client_nonce, scram::nonce(&self.setup.random));
        let server_first = format!("r={nonce},s={},i={}", scram::encode(&keys.salt), keys.iterations);
        let challenge = server_first.clone().into_bytes();
        self.state = State::ScramProof { first, keys, server_first, nonce, known };
        Progress::Challenge(challenge)
    }

    fn scram_verify(
        &mut self,
        message: &str,
        first: ScramFirst,
        keys: &ScramKeys,
        server_first: &str,
        nonce: &str,
        known: bool,
    ) -> Result<Progress, SaslError> {
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(SaslError::Malformed)?;
        let mut parts = without_proof.split(',');
        let bound = scram::decode(scram::attribute(&mut parts, 'c')?)?;
        let echoed = scram::attribute(&mut parts, 'r')?;
        let auth_message = format!("{},{server_first},{without_proof}", first.bare);
        let proven = keys.accepts(&auth_message, &scram::decode(proof)?);
        if !known || !proven || echoed != nonce || !is_equal(&bound, &first.bound) {
            return Err(SaslError::Refused);
        }
        let signature = scram::encode(&keys.server_signature(&auth_message));
        self.state = State::ScramLast(first.identity);
        Ok(Progress::Challenge(format!("v={signature}").into_bytes()))
    }
}

fn identity(user: &str, acts_as: &str) -> Result<Identity, SaslError> {
    if user.is_empty() || user.contains('\0') {
        return Err(SaslError::Malformed);
    }
    Ok(Identity { user: user.into(), acts_as: non_empty(acts_as).filter(|name| **name != *user) })
}

fn non_empty(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}
