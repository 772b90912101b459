//! The vendors that can be simulated: one line here and one file below for each.

use crate::vendor::Vendor;

mod aoqiwei_crm;
mod aoqiwei_scm;
mod china;
mod keruyun;
mod loyverse;
mod meituan_cater;
mod meituan_waimai;
mod multipart;
mod pinzhi;
mod shopify;
mod square;
#[cfg(test)]
mod stage;
mod tiancai_shanglong;

/// Makes a vendor.
type Make = fn() -> Box<dyn Vendor>;

/// Every vendor by its name, in the order of their names.
const VENDORS: &[(&str, Make)] = &[
    ("aoqiwei-crm", || Box::new(aoqiwei_crm::AoqiweiCrm)),
    ("aoqiwei-scm", || Box::new(aoqiwei_scm::AoqiweiScm)),
    ("keruyun", || Box::new(keruyun::Keruyun)),
    ("loyverse", || Box::new(loyverse::Loyverse)),
    ("meituan-cater", || Box::new(meituan_cater::MeituanCater)),
    ("meituan-waimai", || Box::new(meituan_waimai::MeituanWaimai)),
    ("pinzhi", || Box::new(pinzhi::Pinzhi)),
    ("shopify", || Box::new(shopify::Shopify)),
    ("square", || Box::new(square::Square)),
    ("tiancai-shanglong", || Box::new(tiancai_shanglong::TiancaiShanglong)),
];

/// The names of the vendors that can be simulated.
#[must_use]
pub fn names() -> Vec<&'static str> {
    VENDORS.iter().map(|(name, _)| *name).collect()
}

/// The vendor of this name.
pub(crate) fn find(name: &str) -> Option<Box<dyn Vendor>> {
    VENDORS.iter().find(|(known, _)| *known == name).map(|(_, make)| make())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vendor_is_found_by_the_name_that_it_has() {
        for name in names() {
            let vendor = find(name).unwrap();
            assert_eq!(vendor.name(), name);
            assert!(!vendor.streams().is_empty() && !vendor.shops().is_empty());
        }
        assert!(names().is_sorted());
    }
}
