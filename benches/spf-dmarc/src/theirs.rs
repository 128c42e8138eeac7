//! mail-auth 0.13.3.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{
    AuthenticatedMessage, AuthenticationResults, DkimOutput, DkimResult, DmarcResult, MX,
    MessageAuthenticator, Parameters, RecordSet, ResolverCache, SpfOutput, SpfResult,
};

use crate::zone::{Empty, TxtCache};
use crate::{Mail, What, now};

type With<'x, P> = Parameters<'x, P, TxtCache, Empty, Empty, Empty, Empty>;

pub struct Theirs {
    mail: Mail,
    text: TxtCache,
    parsed: TxtCache,
    authenticator: MessageAuthenticator,
    /// What SPF says of the message.
    passed: SpfOutput,
}

impl Theirs {
    pub fn new(mail: Mail, keys: &[(String, String)]) -> Theirs {
        let [text, parsed] = TxtCache::both(keys);
        let authenticator = MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default())
            .expect("a resolver that is never asked");
        let passed = SpfOutput::new("g.test".to_owned()).with_result(SpfResult::Pass);
        Theirs { mail, text, parsed, authenticator, passed }
    }

    pub fn run(&self, what: What, remembered: bool) {
        let cache = if remembered { &self.parsed } else { &self.text };
        match what {
            What::SpfGoogle | What::SpfOutlook => {
                black_box(self.spf(what, cache));
            }
            What::Dmarc => {
                let message = AuthenticatedMessage::parse(&self.mail.plain).expect("a message");
                black_box(self.dmarc(&message, &self.passed, &[], cache));
            }
            What::Check | What::Signed => self.check(what, cache),
        }
    }

    fn spf(&self, what: What, cache: &TxtCache) -> SpfOutput {
        let (ip, sender) = what.sender();
        let params = SpfParameters::verify_mail_from(ip, "mx.test", "host.test", sender);
        let output = now(self.authenticator.verify_spf(with(params, cache)));
        assert_eq!(output.result(), SpfResult::Pass);
        output
    }

    fn dmarc(
        &self,
        message: &AuthenticatedMessage<'_>,
        spf: &SpfOutput,
        dkim: &[DkimOutput<'_>],
        cache: &TxtCache,
    ) -> mail_auth::DmarcOutput {
        let params = DmarcParameters::new(message, dkim, "g.test", spf);
        let result = now(self.authenticator.verify_dmarc(with(params, cache)));
        assert_eq!(*result.spf_result(), DmarcResult::Pass);
        result
    }

    fn check(&self, what: What, cache: &TxtCache) {
        let spf = self.spf(what, cache);
        let message = AuthenticatedMessage::parse(self.mail.octets(what)).expect("a message");
        let dkim = match what {
            What::Signed => now(self.authenticator.verify_dkim(with(&message, cache))),
            _ => Vec::new(),
        };
        let passed = dkim.iter().filter(|output| *output.result() == DkimResult::Pass).count();
        assert_eq!(passed, usize::from(what == What::Signed));
        let dmarc = self.dmarc(&message, &spf, &dkim, cache);
        let (ip, sender) = what.sender();
        let mut results = AuthenticationResults::new("mx.test");
        results = results.with_spf_mailfrom_result(&spf, ip, sender, "mx.test");
        if what == What::Signed {
            results = results.with_dkim_results(&dkim, "joe@g.test");
        }
        black_box(results.with_dmarc_result(&dmarc).to_string());
    }
}

fn with<P>(params: P, cache: &TxtCache) -> With<'_, P>
where
    Empty: ResolverCache<Box<str>, RecordSet<MX>>
        + ResolverCache<Box<str>, RecordSet<Ipv4Addr>>
        + ResolverCache<Box<str>, RecordSet<Ipv6Addr>>
        + ResolverCache<IpAddr, RecordSet<Box<str>>>,
{
    Parameters {
        params,
        cache_txt: Some(cache),
        cache_mx: None,
        cache_ptr: None,
        cache_ipv4: None,
        cache_ipv6: None,
    }
}
