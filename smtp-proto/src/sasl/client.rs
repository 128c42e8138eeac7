//! The client's side of an exchange.
//!
//! Invariant: SCRAM counts as successful only once the server has proved that it knows the password too: a session
//! must look at [`Exchange::is_proven`] before it believes a 235.
//!
//! Standards: see [`sasl`](super).
//!
//! Not here: AUTH, base64, whether TLS is good enough (the session).

use super::scram::{self, ITERATIONS_MAX, ITERATIONS_MIN};
use super::{ChannelBinding, Mechanism, SaslError, Secret, cram_digest, is_equal, text};

/// Who we are, and how we prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// A user name and a password.
    Password {
        /// The user name.
        user: Box<str>,
        /// The password.
        password: Secret,
    },
    /// A user name and an OAuth bearer token.
    Token {
        /// The user name, as a rule a mail address.
        user: Box<str>,
        /// The token.
        token: Secret,
    },
    /// The TLS client certificate, and as whom to act, if not as the certificate says.
    External {
        /// The authorization identity; `None` leaves it to the server.
        identity: Option<Box<str>>,
    },
}

impl Credentials {
    /// Whether they can be used with a mechanism.
    pub fn fit(&self, mechanism: Mechanism) -> bool {
        match self {
            Credentials::Token { .. } => matches!(mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer),
            Credentials::External { .. } => mechanism == Mechanism::External,
            Credentials::Password { .. } => mechanism < Mechanism::XOAuth2,
        }
    }

    /// The best of the offered mechanisms: bound before unbound, proof before clear text. Mechanisms that send the
    /// secret in clear are left out unless `clear_text` is given, and -PLUS without channel binding data (`bound`).
    pub fn choose<'n>(
        &self,
        offered: impl IntoIterator<Item = &'n str>,
        clear_text: bool,
        bound: bool,
    ) -> Option<Mechanism> {
        let usable = |mechanism: &Mechanism| {
            self.fit(*mechanism)
                && (clear_text || !mechanism.is_clear_text())
                && (bound || !mechanism.is_bound())
        };
        offered.into_iter().filter_map(Mechanism::from_name).filter(usable).max()
    }
}

/// One exchange.
#[derive(Debug)]
pub struct Exchange {
    state: State,
}

#[derive(Debug)]
enum State {
    /// One message, and then the server's word.
    Once(Option<Secret>),
    LoginUser {
        user: Box<str>,
        password: Secret,
    },
    LoginPassword(Secret),
    Cram {
        user: Box<str>,
        password: Secret,
    },
    Bearer {
        message: Option<Secret>,
        answer: &'static [u8],
    },
    Scram(Box<Scram>),
    /// All was said; whether the server has proved itself, where it has to.
    Over {
        proven: bool,
    },
}

#[derive(Debug)]
struct Scram {
    hash: scram::Hash,
    password: Secret,
    /// The GS2 header and the binding data behind it.
    header: String,
    binding: Vec<u8>,
    first_bare: String,
    nonce: String,
    step: ScramStep,
}

#[derive(Debug)]
enum ScramStep {
    First,
    Challenge,
    /// The signature that the server must show.
    Verify(Vec<u8>),
}

impl Exchange {
    /// An exchange of `mechanism`. `random` is 18 fresh random octets; `bindings` is what the TLS connection
    /// offers, best first, and empty without TLS.
    ///
    /// # Errors
    /// The credentials do not fit the mechanism, or channel binding is needed and not there.
    pub fn new(
        mechanism: Mechanism,
        credentials: &Credentials,
        bindings: &[ChannelBinding],
        random: [u8; 18],
    ) -> Result<Exchange, SaslError> {
        if !credentials.fit(mechanism) {
            return Err(SaslError::Credentials);
        }
        let state = match credentials {
            Credentials::External { identity } => {
                State::Once(Some(Secret::new(identity.as_deref().unwrap_or_default())))
            }
            Credentials::Token { user, token } => bearer(mechanism, user, token)?,
            Credentials::Password { user, password } => {
                if user.contains('\0') || password.expose().contains('\0') {
                    return Err(SaslError::Credentials);
                }
                let (user, password) = (user.clone(), password.clone());
                match mechanism.hash() {
                    Some(hash) => {
                        let bound = mechanism.is_bound();
                        State::Scram(Box::new(Scram::new(hash, &user, password, bound, bindings, random)?))
                    }
                    None if mechanism == Mechanism::CramMd5 => State::Cram { user, password },
                    None if mechanism == Mechanism::Login => State::LoginUser { user, password },
                    None => State::Once(Some(Secret::new(format!("\0{user}\0{}", password.expose())))),
                }
            }
        };
        Ok(Exchange { state })
    }

    /// The message that may go with AUTH itself (the initial response); `None` if the server speaks first.
    pub fn first(&mut self) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Once(message) | State::Bearer { message, .. } => {
                let message = message.take()?;
                Some(message.expose().as_bytes().to_vec())
            }
            State::Scram(scram) if matches!(scram.step, ScramStep::First) => {
                scram.step = ScramStep::Challenge;
                Some(format!("{}{}", scram.header, scram.first_bare).into_bytes())
            }
            _ => None,
        }
    }

    /// How long [`Exchange::first`] would be.
    pub fn first_len(&self) -> Option<usize> {
        match &self.state {
            State::Once(message) | State::Bearer { message, .. } => {
                message.as_ref().map(|m| m.expose().len())
            }
            State::Scram(scram) if matches!(scram.step, ScramStep::First) => {
                Some(scram.header.len() + scram.first_bare.len())
            }
            _ => None,
        }
    }

    /// Answers a challenge of the server.
    ///
    /// # Errors
    /// The challenge makes no sense or proves that the server does not know the password: cancel with `*`.
    pub fn step(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslError> {
        super::check_length(challenge)?;
        // An empty challenge asks for the initial response where it was not sent with AUTH.
        if challenge.is_empty()
            && let Some(first) = self.first()
        {
            return Ok(first);
        }
        match std::mem::replace(&mut self.state, State::Over { proven: false }) {
            State::LoginUser { user, password } => {
                self.state = State::LoginPassword(password);
                Ok(user.as_bytes().to_vec())
            }
            State::LoginPassword(password) => {
                self.state = State::Over { proven: true };
                Ok(password.expose().as_bytes().to_vec())
            }
            State::Cram { user, password } => {
                self.state = State::Over { proven: true };
                Ok(format!("{user} {}", cram_digest(password.expose(), challenge)).into_bytes())
            }
            // The challenge says why the token was refused; the answer lets the server send its 535.
            State::Bearer { message: None, answer } => Ok(answer.to_vec()),
            State::Scram(mut scram) => {
                let answer = scram.step(challenge)?;
                self.state = match scram.step {
                    ScramStep::First => State::Over { proven: true },
                    _ => State::Scram(scram),
                };
                Ok(answer)
            }
            State::Once(_) | State::Bearer { .. } | State::Over { .. } => Err(SaslError::Malformed),
        }
    }

    /// Takes what a server may send along with success: for SCRAM the server's proof. Then tells whether the server
    /// has done what the mechanism asks of it, so that success may be believed.
    pub fn is_proven(&self) -> bool {
        match &self.state {
            State::Once(message) | State::Bearer { message, .. } => message.is_none(),
            State::Over { proven } => *proven,
            _ => false,
        }
    }
}

fn bearer(mechanism: Mechanism, user: &str, token: &Secret) -> Result<State, SaslError> {
    let clean = |text: &str| !text.contains(|c: char| c.is_ascii_control());
    if !clean(user) || !clean(token.expose()) {
        return Err(SaslError::Credentials);
    }
    let token = token.expose();
    let (message, answer): (String, &'static [u8]) = match mechanism {
        Mechanism::OAuthBearer => {
            (format!("n,a={},\u{1}auth=Bearer {token}\u{1}\u{1}", scram::escape(user)), b"\x01")
        }
        _ => (format!("user={user}\u{1}auth=Bearer {token}\u{1}\u{1}"), b""),
    };
    Ok(State::Bearer { message: Some(Secret::new(message)), answer })
}

impl Scram {
    fn new(
        hash: scram::Hash,
        user: &str,
        password: Secret,
        bound: bool,
        bindings: &[ChannelBinding],
        random: [u8; 18],
    ) -> Result<Scram, SaslError> {
        let (header, binding) = match (bound, bindings.first()) {
            (true, Some(binding)) => (format!("p={},,", binding.name()), binding.data().to_vec()),
            (true, None) => return Err(SaslError::NoBinding),
            // `y`: we could, and think that the server cannot. One that can knows then that someone is between us.
            (false, Some(_)) => ("y,,".to_owned(), Vec::new()),
            (false, None) => ("n,,".to_owned(), Vec::new()),
        };
        let nonce = scram::nonce(&random);
        let first_bare = format!("n={},r={nonce}", scram::escape(user));
        Ok(Scram { hash, password, header, binding, first_bare, nonce, step: ScramStep::First })
    }

    fn step(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslError> {
        let challenge = text(challenge)?;
        match std::mem::replace(&mut self.step, ScramStep::First) {
            ScramStep::First => Err(SaslError::Malformed),
            ScramStep::Challenge => self.prove(challenge),
            ScramStep::Verify(signature) => {
                let value = challenge.split(',').next().unwrap_or_default();
                match value.strip_prefix("v=") {
                    Some(value) if is_equal(&scram::decode(value)?, &signature) => Ok(Vec::new()),
                    Some(_) => Err(SaslError::Server),
                    None if value.starts_with("e=") => Err(SaslError::Refused),
                    None => Err(SaslError::Malformed),
                }
            }
        }
    }

    fn prove(&mut self, challenge: &str) -> Result<Vec<u8>, SaslError> {
        let mut parts = challenge.split(',');
        let nonce = scram::attribute(&mut parts, 'r')?;
        let salt = scram::decode(scram::attribute(&mut parts, 's')?)?;
        let iterations: u32 = scram::attribute(&mut parts, 'i')?.parse().map_err(|_| SaslError::Malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(SaslError::Server);
        }
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(SaslError::Iterations);
        }
        let bound = [self.header.as_bytes(), &self.binding].concat();
        let without_proof = format!("c={},r={nonce}", scram::encode(&bound));
        let auth_message = format!("{},{challenge},{without_proof}", self.first_bare);
        let (proof, server) =
            scram::prove(self.hash, self.password.expose(), &salt, iterations, &auth_message);
        self.step = ScramStep::Verify(server);
        Ok(format!("{without_proof},p={}", scram::encode(&proof)).into_bytes())
    }
}
